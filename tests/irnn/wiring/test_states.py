"""States and sequences of different lengths: the program means what the simulation means, and that is torch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import irnn
from irnn.errors import IrnnError
from irnn.wiring.executor import StateSpec
from irnn.wiring.simulate import Simulation
from tests.support.wired import BATCH, SIZE, Wired, features, ready, real, site, steps_apart


class Ragged(Wired):
    """Of sequences of different lengths."""

    def program_wire(self, a: Any) -> None:
        x = a.features("x", self.input_site)
        a.ragged(a.lengths("lengths", "time"))
        a.output("y", self._wire(a, self, x))


LENGTHS = torch.tensor([4, 9, 1])


def ragged_apart(model: Ragged, x: Tensor) -> tuple[Tensor, float]:
    """(the simulation's output in the last stage, how far the program's is from it in steps)."""
    ready(model, x)
    specs = [spec for name in ("one", "two") if hasattr(model, "rnn") for spec in model.rnn.state_specs(name)]
    a = Simulation({spec.name: torch.zeros(len(x), spec.size) for spec in specs}, training=False, observing=False)
    a.ragged(LENGTHS)
    with torch.no_grad():
        y = model._wire(a, model, a.input(model.input_site, x.transpose(0, 1)))
    program = irnn.convert(model)
    value = program.values[program.outputs[0]]
    inputs = {"x": program.inputs["x"].quantize(x.numpy()), "lengths": LENGTHS.numpy().astype(np.int32)}
    got, _ = program.run(inputs)
    for row, length in enumerate(LENGTHS):  # what lies behind an end changes nothing
        alone, _ = program.run({"x": inputs["x"][row : row + 1, :length], "lengths": inputs["lengths"][row : row + 1]})
        np.testing.assert_array_equal(alone[0], got[row])
    return y, float(np.abs((got - float(value.zero_point)) * value.scale - y.numpy()).max() / value.scale)


@pytest.mark.parametrize("word", ["mean", "max"])
def test_only_valid_steps_are_reduced(word: str) -> None:
    x = features()
    reduce = {"mean": lambda a, m, x: a.requantize(m.out, a.time_mean(x)), "max": lambda a, m, x: a.time_max(x)}[word]
    exact = [rows[:n].mean(0) if word == "mean" else rows[:n].amax(0) for rows, n in zip(x, LENGTHS, strict=True)]
    model = Ragged(reduce, out=site("preactivation"))
    a = Simulation({}, training=False, observing=False)
    a.ragged(LENGTHS)
    torch.testing.assert_close(reduce(a, model, x.transpose(0, 1)), torch.stack(exact))
    _, apart = ragged_apart(model, x)
    assert apart < 2


def ends(a: Any, m: Any, x: Any) -> Any:
    """The last states of both directions, as h_n has them."""
    m.rnn.wire(a, x, "one")
    specs = [spec for spec in m.rnn.state_specs("one") if spec.name.endswith(".h")]
    return a.join(m.out, [a.final(spec) for spec in specs])


@pytest.mark.parametrize("kind", [irnn.LSTM, irnn.GRU])
@pytest.mark.parametrize("packed", [False, True])
def test_the_last_states_are_values(kind: type, packed: bool) -> None:
    """torch's h_n, behind packed sequences too."""
    torch.manual_seed(2)
    rnn = kind(SIZE, 4, bidirectional=True)
    x = features()
    with torch.no_grad():
        given = x.transpose(0, 1)
        if packed:
            given = nn.utils.rnn.pack_padded_sequence(given, LENGTHS, enforce_sorted=False)
        _, state = rnn(given)
    last = torch.cat(list(state[0] if kind is irnn.LSTM else state), -1)
    make = Ragged if packed else Wired
    model = make(ends, rnn=rnn, out=site("cell", 8))
    a = Simulation(
        {s.name: torch.zeros(BATCH, s.size) for s in rnn.state_specs("one")}, training=False, observing=False
    )
    a.ragged(LENGTHS if packed else None)
    with torch.no_grad():
        torch.testing.assert_close(ends(a, model, x.transpose(0, 1)), last)
    if packed:
        _, apart = ragged_apart(model, x)
    else:
        apart = steps_apart(model, x)
    # Steps of 16 bits: h has 8 of them, and its last rounding may go the other way.
    assert apart < 2 * 256 + 2


def encoder_decoder(a: Any, m: Any, x: Any) -> Any:
    """The second stack starts from the last states of the first."""
    m.rnn.wire(a, x, "one")
    for before, after in zip(m.rnn.state_specs("one"), m.decoder.state_specs("two"), strict=True):
        a.start(after, a.final(before))
    return m.decoder.wire(a, x, "two")


@pytest.mark.parametrize("kind", [irnn.LSTM, irnn.GRU])
def test_a_decoder_starts_from_what_the_encoder_leaves(kind: type) -> None:
    torch.manual_seed(2)
    rnn, decoder = kind(SIZE, 4), kind(SIZE, 4)
    x = features()
    with torch.no_grad():
        _, state = rnn(x.transpose(0, 1))
        y, _ = decoder(x.transpose(0, 1), state)
    model = Wired(encoder_decoder, rnn=rnn, decoder=decoder)
    torch.testing.assert_close(real(model, x), y.transpose(0, 1))
    assert steps_apart(model, x) < 3
    program = irnn.convert(model)
    assert {name.partition(".")[0] for name in program.states} == {"one"}
    assert [node.op for node in program.walk()].count("residual") >= (1 if kind is irnn.LSTM else 2)


def test_a_state_starts_before_its_scan_and_ends_behind_it() -> None:
    rnn = irnn.LSTM(SIZE, 4)
    spec = rnn.state_specs("one")[0]

    def late(a: Any, m: Any, x: Any) -> Any:
        y = m.rnn.wire(a, x, "one")
        a.start(spec, a.step(y, 0))
        return y

    for wire, message in (
        (late, "the state 'one.0.h' belongs to a scan already"),
        (lambda a, m, x: a.final(spec), "no scan of the state 'one.0.h' has ended here"),
    ):
        model = Wired(wire, rnn=rnn)
        with pytest.raises(IrnnError, match=message):
            real(model, features())
        with pytest.raises(IrnnError, match=message):
            irnn.float_program(model)
    model = Wired(lambda a, m, x: a.start(spec, x), rnn=rnn)
    with pytest.raises(IrnnError, match=r"the state 'one\.0\.h' cannot start from x, which is a sequence"):
        irnn.float_program(model)


def test_a_state_is_left_at_its_site() -> None:
    """A step that leaves its state at another scale would be read as another number by the next one."""
    model = Wired(
        lambda a, m, x: a.scan(lambda a, x_t, h: (h, x_t), x, [StateSpec("before", SIZE, m.state)]),
        states=lambda m: [StateSpec("before", SIZE, m.state)], state=site("activation"),
    )  # fmt: skip
    x = features()
    model.input_site.observe(x)
    model.state.observe(2 * x)
    with pytest.raises(IrnnError, match=r"the state 'before' is left as x\[t\], which does not live at its site"):
        irnn.convert(model)
