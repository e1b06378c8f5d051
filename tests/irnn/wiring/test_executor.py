"""What a network says to its executor: one set of words, and one meaning in the simulation and in the program."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import irnn
from irnn import qat
from irnn.errors import IrnnError
from irnn.nn.activation import Activation
from irnn.nn.embedding import Embedding
from irnn.nn.linear import Linear
from irnn.nn.norm import Norm
from irnn.wiring.executor import Executor, ProgramExecutor
from irnn.wiring.record_float import FloatRecorder
from irnn.wiring.record_integer import IntegerRecorder
from irnn.wiring.simulate import Simulation
from tests.support.wired import SIZE, Wired, after_linear, linear, ready, site, steps_apart


def words(protocol: type) -> list[str]:
    return [name for name, member in vars(protocol).items() if inspect.isfunction(member) and not name.startswith("_")]


@pytest.mark.parametrize(
    ("executor", "protocol"),
    [
        (Simulation, Executor),
        (IntegerRecorder, Executor),
        (IntegerRecorder, ProgramExecutor),
        (FloatRecorder, Executor),
        (FloatRecorder, ProgramExecutor),
    ],
)
def test_an_executor_knows_every_word(executor: type, protocol: type) -> None:
    """Arguments have one name, order and kind everywhere: a wiring calls any of them."""
    assert len(words(protocol)) > 4
    for word in words(protocol):
        wanted, found = (inspect.signature(getattr(cls, word)).parameters for cls in (protocol, executor))
        assert [(p.name, p.kind) for p in found.values()] == [(p.name, p.kind) for p in wanted.values()], word


# Every one has an asymmetric value somewhere.
RIGHT = {
    "requantize of a narrow value": lambda: Wired(lambda a, m, x: a.requantize(m.out, x), out=site("activation")),
    "sum of narrow values": lambda: Wired(
        after_linear(lambda a, m, y: a.requantize(m.out, y, y)),
        fc=linear(), before=site("activation"), out=site("activation"),
    ),
    "residual of one value": lambda: Wired(lambda a, m, x: a.residual(m.out, x), out=site("cell")),
    "relu of a narrow value": lambda: Wired(lambda a, m, x: a.relu(m.out, x), out=site("activation")),
    "relu of accumulators": lambda: Wired(
        lambda a, m, x: a.relu(m.out, a.linear(m.fc, x)), fc=linear(), out=site("activation")
    ),
    "norm of a narrow value": lambda: Wired(
        lambda a, m, x: a.norm(m.norm, m.out, x), norm=Norm("layer", SIZE), out=site("norm")
    ),
    "product with sixteen bits": lambda: Wired(
        lambda a, m, x: a.requantize(m.out, a.linear(m.fc, a.residual(m.wide, x))),
        fc=linear(), wide=site("cell"), out=site("activation"),
    ),
    "last step": lambda: Wired(lambda a, m, x: a.last(a.requantize(m.out, x)), out=site("activation")),
    "product of narrow values": lambda: Wired(
        lambda a, m, x: a.requantize(m.out, a.multiply(x, x)), out=site("activation")
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", RIGHT)
def test_program_and_simulation_mean_the_same(case: str) -> None:
    """Within two steps: a sum whose terms round once each, where the simulation rounds the sum.

    A norm's rows have 10 fractional bits and its site 16 bits for up to +-2: half a bit is 8 steps.
    """
    torch.manual_seed(1)
    assert steps_apart(RIGHT[case](), torch.randn(4, 9, SIZE) + 0.5) < (2 if "norm" not in case else 18)


@pytest.mark.parametrize("role", ["activation", "preactivation"])
@pytest.mark.parametrize("function", ["sigmoid", "tanh"])
def test_a_table_is_made_for_its_sites_zero_point(function: str, role: str) -> None:
    torch.manual_seed(1)
    before = site(role)
    wire = after_linear(lambda a, m, y: a.activation(m.act, y))
    model = Wired(wire, fc=linear(), before=before, act=Activation(function, before))
    # A step of the table, and one of its 8-bit input where the two round otherwise: tanh's slope is at most 1.
    assert steps_apart(model, torch.rand(4, 9, SIZE)) < 3


REFUSED = {
    r"out sums \['x', 'fc'\]: fc holds accumulators, which do not add up with values that have a zero point": (
        lambda: Wired(lambda a, m, x: a.requantize(m.out, x, a.linear(m.fc, x)), fc=linear(), out=site("activation"))
    ),
    r"cannot accumulate x: it has the zero point": (
        lambda: Wired(
            lambda a, m, x: a.requantize(m.out, a.accumulate(x, a.linear(m.fc, x))), fc=linear(), out=site("cell")
        )
    ),
    r"out has the role 'activation', which is asymmetric: a norm needs a site of .* preactivation, norm, cell;": (
        lambda: Wired(lambda a, m, x: a.norm(m.norm, m.out, x), norm=Norm("layer", SIZE), out=site("activation"))
    ),
    r"before has the role 'activation', which is asymmetric: a saturating sum needs": (
        lambda: Wired(after_linear(lambda a, m, y: a.add(m.before, y, y)), fc=linear(), before=site("activation"))
    ),
    r"a scan over .* holds another scan": (
        lambda: Wired(lambda a, m, x: a.scan(lambda a, y: (a.scan(lambda a, z: (z,), y, []),), x, []))
    ),
    r"cannot take the complement of x: only a sigmoid's output has one": (
        lambda: Wired(lambda a, m, x: a.complement(x))
    ),
    r"cannot concatenate \['x', 'out'\]: their scales differ": (
        lambda: Wired(
            lambda a, m, x: a.concat([x, a.requantize(m.out, a.linear(m.fc, x))]), fc=linear(), out=site("activation")
        )
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_has_no_integers_is_refused(message: str) -> None:
    torch.manual_seed(1)
    model = ready(REFUSED[message](), torch.rand(4, 9, SIZE) + 0.5)
    with pytest.raises(IrnnError, match=message) as error:
        irnn.convert(model)
    assert "\n" not in str(error.value)


def test_a_state_belongs_to_one_call() -> None:
    """One LSTM called twice: under two names it is right, under one both executors refuse."""
    torch.manual_seed(0)
    x = torch.randn(2, 5, SIZE)

    def twice(second: str) -> Wired:
        def wire(a: Any, m: Any, x: Any) -> Any:
            m.rnn.wire(a, x, "one")
            return m.rnn.wire(a, x, second)

        return Wired(wire, rnn=irnn.LSTM(SIZE, 4))

    assert steps_apart(twice("two"), x) < 2
    again = twice("one")
    with pytest.raises(IrnnError, match=r"the state 'one.0.h' belongs to a scan already"):
        again.simulate(x, observing=False)
    qat.prepare(again, irnn.QuantConfig(), irnn.PwlConfig(), "pwl")
    good = ready(twice("two"), x)
    again.load_state_dict(good.state_dict())
    with pytest.raises(IrnnError, match=r"the state 'one.0.h' belongs to a scan already"):
        irnn.convert(again)


@pytest.mark.parametrize("first", ["table", "fc"])
def test_a_parameter_in_two_roles_is_quantized_for_each(first: str) -> None:
    """An embedding has one scale, a weight one a row: neither takes the other's integers, whichever comes first."""
    torch.manual_seed(0)
    shared = nn.Parameter(torch.randn(5, SIZE) * torch.arange(1.0, 6.0)[:, None])
    model = Wired(lambda a, m, x: x, table=Embedding(shared), fc=Linear(shared))
    qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), "weights")
    recorder, simulation = IntegerRecorder(model), Simulation({}, training=False, observing=False)
    scales = {}
    order = [first, *({"table", "fc"} - {first})]
    for name in order:
        (plane,) = recorder._matrix(getattr(model, name), name).planes
        integers, scale = plane.integers, plane.scale
        scales[name] = scale.shape
        simulated = simulation.weight(getattr(model, name)).detach().numpy()
        np.testing.assert_allclose(simulated, integers * scale[:, None], rtol=1e-6)
    assert scales == {"table": (1,), "fc": (5,)}


def test_tied_weights_of_other_bits_are_quantized_apart() -> None:
    shared = nn.Parameter(torch.randn(5, SIZE))
    model = Wired(lambda a, m, x: x, table=Embedding(shared), fc=Linear(shared, role="logits_weight"))
    qat.prepare(model, irnn.QuantConfig(embedding=8, logits_weight=4), irnn.PwlConfig(), "weights")
    simulation = Simulation({}, training=False, observing=False)
    eight, four = simulation.weight(model.table), simulation.weight(model.fc)
    assert max(len(torch.unique(row)) for row in four) <= 15  # each with a scale of its own
    assert len(torch.unique(eight)) > 15


def test_dropout_falls_on_the_codes_of_what_it_reads() -> None:
    """Codes have no 0: those of a vector with zeros in it would be other ones than those that evaluation finds."""
    model = Wired(lambda a, m, x: x, fc=Linear(nn.Parameter(torch.eye(SIZE)), reads_hidden=True))
    model.fc.operand_codes = 2
    simulation = Simulation({}, training=True, observing=False)
    x = torch.randn(4, 3, SIZE, generator=torch.Generator().manual_seed(3))
    y = simulation.linear(model.fc, simulation.dropout(x, 0.5))
    whole = simulation.linear(model.fc, x)
    kept = y != 0
    assert 0 < kept.sum() < x.numel()
    torch.testing.assert_close(y, torch.where(kept, whole * 2, 0.0))
    evaluation = Simulation({}, training=False, observing=False)
    torch.testing.assert_close(evaluation.linear(model.fc, evaluation.dropout(x, 0.5)), whole)


class Ended(Wired):
    """The last step of sequences of different lengths."""

    def __init__(self) -> None:
        super().__init__(lambda a, m, x: a.last(a.requantize(m.out, x)), out=site("activation"))

    def program_wire(self, a: Any) -> None:
        x = a.features("x", self.input_site)
        a.ragged(a.lengths("lengths", "time"))
        a.output("y", self._wire(a, self, x))


def test_the_last_step_is_that_of_each_sequence() -> None:
    torch.manual_seed(0)
    x, lengths = torch.randn(3, 6, SIZE) + 1, torch.tensor([2, 6, 1])
    model = ready(Ended(), x)
    simulation = Simulation({}, training=False, observing=False)
    simulation.ragged(lengths)
    with torch.no_grad():
        y = model._wire(simulation, model, simulation.input(model.input_site, x.transpose(0, 1)))
    program = irnn.convert(model)
    inputs = {"x": program.inputs["x"].quantize(x.numpy()), "lengths": lengths.numpy().astype("int32")}
    got, _ = program.run(inputs)
    value = program.values[program.outputs[0]]
    assert value.axes == ()
    assert got.shape == (3, SIZE)
    assert float(np.abs((got - float(value.zero_point)) * value.scale - y.numpy()).max()) < 2 * value.scale
    for row, length in enumerate(lengths):
        alone, _ = program.run({"x": inputs["x"][row : row + 1, :length], "lengths": inputs["lengths"][row : row + 1]})
        assert np.array_equal(alone[0], got[row])


def test_what_nothing_reads_is_not_recorded() -> None:
    torch.manual_seed(0)
    model = Wired(after_linear(lambda a, m, y: a.split(y, 3)[1]), fc=linear(), before=site("preactivation"))
    assert steps_apart(model, torch.randn(2, 5, SIZE)) < 2
    program = irnn.convert(model)
    assert [node.op for node in program.walk()] == ["linear", "requantize", "slice"]
    assert "before.0" not in program.values
