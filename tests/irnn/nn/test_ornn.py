"""The orthogonal cell from its float self to integers: what is its own beside what every cell is tested for."""

from __future__ import annotations

import itertools
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import irnn
from irnn import qat
from irnn.errors import IrnnError
from irnn.models.sequence import random_layer
from irnn.nn.cells import CELLS, ornn
from irnn.nn.cells.ornn import ORNNCell
from irnn.nn.fast.recurrence import Recurrence, recurrence
from irnn.nn.recurrent import Recurrent
from irnn.program import Program, Scan
from irnn.program.check import ranges
from irnn.quant.site import QuantSite
from irnn.wiring.simulate import Simulation
from tests.irnn.wiring.test_converted_programs import assert_equal_to_evaluator
from tests.support.models import assert_trains_in_every_stage, ids, quantized, quantized_layer

QORNN = irnn.QuantConfig(weight="full_range:4", cell=12)
FORMS = list(itertools.product(("identity", "relu", "modrelu"), (False, True)))
forms = pytest.mark.parametrize(("nonlinearity", "linear"), FORMS)


def one_hot_model(size: int = 24, **options) -> irnn.LanguageModel:
    torch.manual_seed(0)
    config = irnn.LanguageModelConfig(60, None, size, tie_weights=False, cell="ornn", dropout=0, cell_options=options)
    return irnn.LanguageModel(config)


@forms
@pytest.mark.parametrize("orthogonal", ["bjorck", "hadamard"])
def test_evaluation_is_the_programs_integers(nonlinearity: str, linear: bool, orthogonal: str) -> None:
    """Against the interpreter, the independent evaluator and the compiled step, from zeros and from random states."""
    quant = (
        QORNN if orthogonal == "bjorck" else irnn.QuantConfig(weight="full_range:3", cell=12, of={"*.w_h": "binary"})
    )
    model = one_hot_model(nonlinearity=nonlinearity, linear=linear, orthogonal=orthogonal)
    program, tokens = irnn.convert(quantized(model, quant)), ids(3, 20)
    logits_i32, state = program.run(tokens.numpy())
    logits, evaluated = model(tokens)
    assert torch.equal(logits, torch.from_numpy(logits_i32) * program.logits_scale)
    assert state["ornn.0.h"].dtype == np.int16
    assert np.array_equal(state["ornn.0.h"], evaluated["ornn.0.h"].numpy())
    assert_equal_to_evaluator(program)


def test_stacks_in_both_directions_and_step_by_step() -> None:
    model = quantized_layer(QORNN, cell="ornn", bidirectional=True, num_layers=2)
    program, x = irnn.convert(model), model.integer_input(torch.randn(2, 11, 9))
    h, _ = program.run(x.numpy())
    assert (h.shape, h.dtype) == ((2, 11, 32), np.int16)
    assert np.array_equal(h, model(x)[0].numpy())
    assert_equal_to_evaluator(program)


def scan_of(program: Program) -> Scan:
    (scan,) = (item for item in program.nodes if isinstance(item, Scan))
    return scan


def test_the_loop_is_a_product_and_one_rounding_a_term() -> None:
    """relu: nothing else; the state has 12 bits, a power of two as its scale, and a proved accumulator."""
    program = irnn.convert(quantized_layer(QORNN, cell="ornn"))
    body = scan_of(program).body
    assert [node.op for node in body] == ["linear", "requantize"]
    assert (body[1].attributes["low"], body[1].attributes["high"]) == (0, 2047)
    scale = program.values[body[1].output].scale
    assert np.log2(scale) == round(np.log2(scale))
    assert ranges(program)[body[1].output] == (0, 2047)
    product = ranges(program)[body[0].output]
    assert 16 * 2048 < product[1] < 2**31
    weight = program.tensors[body[0].tensors["weight"]]
    assert (weight.encoding, weight.bits) == ("codebook", 4)
    assert weight.data.min() >= -8
    assert weight.data.max() <= 7


def test_an_accumulator_that_a_state_could_overflow_is_refused() -> None:
    """For any int16 state: weights of 8 bits all at their largest over 600 columns do, those of 4 bits do not."""
    for bits, refused in ((8, True), (4, False)):
        model = random_layer(3, 600, cell="ornn", orthogonal=None)
        with torch.no_grad():
            model.recurrent.layers[0].cells["forward_cell"].w_h.weight.fill_(-1.0)
        qat.prepare(model, irnn.QuantConfig(weight=f"full_range:{bits}", cell=12), irnn.PwlConfig(), "all")
        for site in (module for module in model.modules() if isinstance(module, QuantSite)):
            site.observed_min.fill_(-1.0)
            site.observed_max.fill_(1.0)
        if refused:
            with pytest.raises(IrnnError, match=r"linear ornn\.0\.w_h could overflow int32"):
                irnn.convert(model.eval())
        else:
            irnn.convert(model.eval())


@forms
def test_all_steps_at_once_are_the_wiring(nonlinearity: str, linear: bool) -> None:
    """Outputs, last states and gradients, with and without lengths; in double precision."""
    torch.manual_seed(0)
    stack = Recurrent("ornn", 5, 7, bidirectional=True, nonlinearity=nonlinearity, linear=linear).double()
    for lengths in (None, torch.tensor([6, 1, 4])):
        found = []
        for at_once in (True, False):
            with pytest.MonkeyPatch.context() as patch:
                if not at_once:
                    patch.setattr(ORNNCell, "whole", lambda self: None)
                generator = torch.Generator().manual_seed(1)
                x = torch.randn(6, 3, 5, dtype=torch.double, generator=generator).requires_grad_()
                start = {spec.name: torch.randn(3, 7, dtype=torch.double, generator=generator)
                         for spec in stack.state_specs("ornn")}  # fmt: skip
                simulation = Simulation(start, training=True, observing=True)
                simulation.ragged(lengths)
                y = stack.wire(simulation, x, "ornn")
                y = y if lengths is None else simulation.mask(y)
                stack.zero_grad()
                (y.square().sum() + sum(s.square().sum() for s in simulation.state.values())).backward()
                gradients = [p.grad.clone() for p in stack.parameters()]
                found.append([y, *simulation.state.values(), x.grad, *gradients])
        for expected, mine in zip(*found, strict=True):
            torch.testing.assert_close(mine, expected, rtol=0, atol=1e-11)


def test_the_fast_recurrence_has_the_gradient_of_its_steps() -> None:
    p, w, h = (torch.randn(*shape, dtype=torch.double, requires_grad=True) for shape in ((4, 2, 3), (3, 3), (2, 3)))
    for relu in (False, True):
        assert torch.autograd.gradcheck(lambda p, w, h, relu=relu: recurrence(p, w, h, relu=relu), (p, w, h))


@pytest.mark.parametrize("steps", [1, 2, 3, 11, 16, 30])
def test_pieces_side_by_side_are_the_steps(steps: int) -> None:
    """The way of a GPU, whose pieces need not divide the steps: values, and the gradients of all three."""
    generator = torch.Generator().manual_seed(steps)
    given = [torch.randn(*shape, dtype=torch.double, generator=generator).requires_grad_()
             for shape in ((steps, 2, 3), (3, 3), (2, 3))]  # fmt: skip
    wanted = torch.randn(steps, 2, 3, dtype=torch.double, generator=generator)
    before = given[0].detach().clone()
    found = []
    for pieces in (False, True):
        h = Recurrence.apply(*given, False, pieces)
        found.append([h, *torch.autograd.grad((h * wanted).sum(), given)])
    for expected, mine in zip(*found, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-11, atol=1e-11)
    assert torch.equal(given[0], before)


def test_it_takes_over_torchs_relu_rnn() -> None:
    torch.manual_seed(0)
    theirs = torch.nn.RNN(5, 7, nonlinearity="relu", bidirectional=True)
    ours = Recurrent("ornn", 5, 7, bidirectional=True, orthogonal=None)
    layer = ours.layers[0]
    for direction, name in enumerate(("forward_cell", "backward_cell")):
        layer.cells[name] = ORNNCell.from_torch(theirs, 0, direction, hidden=layer.hidden)
    x = torch.randn(4, 3, 5)
    torch.testing.assert_close(ours(x)[0], theirs(x)[0], rtol=0, atol=1e-6)
    with pytest.raises(IrnnError, match="RNN_TANH is no ReLU RNN"):
        ORNNCell.from_torch(torch.nn.RNN(5, 7), 0, 0, hidden=layer.hidden)


@pytest.mark.parametrize("orthogonal", ["bjorck", "projunn_d"])
def test_it_trains_in_every_stage(orthogonal: str) -> None:
    assert_trains_in_every_stage(one_hot_model(orthogonal=orthogonal), QORNN)


def test_float_programs_hold_it_too() -> None:
    ops = {
        n: {node.op for node in irnn.float_program(one_hot_model(nonlinearity=n)).walk()} for n in ("relu", "modrelu")
    }
    assert ops == {
        "relu": {"embedding", "linear", "add", "relu"},
        "modrelu": {"embedding", "linear", "add", "mod_relu"},
    }


def test_the_state_dict_brings_it_back() -> None:
    model = quantized(one_hot_model(orthogonal="hadamard"), QORNN)
    again = one_hot_model(orthogonal="hadamard", nonlinearity="relu")
    with torch.no_grad():
        again.ornn.layers[0].cells["forward_cell"].w_h.sign.neg_()
    again.load_state_dict(model.state_dict())
    tokens = ids(2, 9)
    assert torch.equal(again.eval()(tokens)[0], model(tokens)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nonlinearity": "tanh"}, r"nonlinearity='tanh' is unknown; allowed are identity, relu, modrelu"),
        ({"orthogonal": "cayley"}, r"orthogonal='cayley' is unknown; allowed are bjorck, projunn_d, projunn_t"),
        ({"linear": "yes"}, r"linear='yes' must be true or false"),
        ({"norm": "mad"}, r"norm='mad': an orthogonal cell has none"),
        ({"orthogonal": "hadamard"}, r"hidden_size=36: no Hadamard matrix of that size .* near it are 32, 40"),
        ({"proj_size": 3}, r"proj_size=3: no option of the cell 'ornn'; it has nonlinearity, linear, orthogonal"),
    ],
)  # fmt: skip
def test_bad_options_are_one_line(options: dict, message: str) -> None:
    with pytest.raises(IrnnError, match=message):
        random_layer(5, 36, cell="ornn", **options)


# One bug at a time in the cell's own text: torch's RNN, or the oracle that follows its wiring, must notice each.
PLANTED = {
    "the input left out": ("product, pre)\n            return h, h", "product)\n            return h, h"),
    "the state is not carried": ("product, pre)\n            return h, h", "product, pre)\n            return h, pre"),
    "U reads the state": ("a.linear(self.w_h, h)", "a.linear(self.w_h, pre)"),
    "the state at eight bits": ('"cell", hidden_size, power_of_two=True', '"hidden", hidden_size'),
    "the scale is no power of two": ("power_of_two=True", "power_of_two=False"),
}  # fmt: skip


def mutated(old: str, new: str) -> type[ORNNCell]:
    text = Path(ornn.__file__).read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in the cell"
    copy = types.ModuleType("irnn.nn.cells.ornn_copy")
    exec(compile(text.replace(old, new), "ornn.py (mutated)", "exec"), copy.__dict__)
    return copy.ORNNCell


def check_cell(cell: type[ORNNCell], monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal to torch's in float by its steps; in integers equal to a plain loop in Python's integers."""
    monkeypatch.setitem(CELLS, "ornn", cell)
    monkeypatch.setattr(cell, "whole", lambda self: None)
    torch.manual_seed(0)
    theirs, ours = torch.nn.RNN(9, 16, nonlinearity="relu"), Recurrent("ornn", 9, 16, orthogonal=None)
    layer = ours.layers[0]
    layer.cells["forward_cell"] = cell.from_torch(theirs, 0, 0, hidden=layer.hidden)
    x = torch.randn(5, 3, 9)
    torch.testing.assert_close(ours(x)[0], theirs(x)[0], rtol=0, atol=1e-6)
    program = irnn.convert(quantized_layer(QORNN, cell="ornn"))
    features = np.random.default_rng(0).integers(-128, 128, (1, 6, 9)).astype(np.int8)
    h, _ = program.run(features)
    assert np.array_equal(h[0], by_definition(program, features[0]))


def by_definition(program: Program, x: np.ndarray) -> np.ndarray:
    """``h = clamp(rescale(W h) + rescale(pre))`` from 0 to 2047, in unbounded integers and exact fractions of them."""
    tensors = {name: tensor.data.tolist() for name, tensor in program.tensors.items()}
    outer, scan = [n for n in program.nodes if not isinstance(n, Scan)], scan_of(program)

    def rescaled(node, k: int, value: int, row: int) -> int:
        m, n = ((v := tensors[node.tensors[f"{r}_{k}"]])[row % len(v)] for r in ("multiplier", "shift"))
        return (value * m * 2 + 2**n) // 2 ** (n + 1)

    def product(node, vector: list[int]) -> list[int]:
        rows = zip(tensors[node.tensors["weight"]], tensors[node.tensors["bias"]], strict=True)
        return [sum(w * v for w, v in zip(row, vector, strict=True)) + b for row, b in rows]

    u, preactivation, w, after = *outer, *scan.body
    assert [n.op for n in (u, preactivation, w, after)] == ["linear", "requantize", "linear", "requantize"]
    h, found = [0] * 16, []
    for row in x.tolist():
        pre = [min(max(rescaled(preactivation, 0, v, k), -32768), 32767) for k, v in enumerate(product(u, row))]
        acc = product(w, h)
        h = [min(max(rescaled(after, 0, a, k) + rescaled(after, 1, p, k), 0), 2047)
             for k, (a, p) in enumerate(zip(acc, pre, strict=True))]  # fmt: skip
        found.append(h)
    scale = program.values[after.output].scale
    assert scale == 2.0 ** round(np.log2(scale))
    return np.array(found, np.int16)


def test_the_cell_equals_torch_and_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    check_cell(ORNNCell, monkeypatch)


@pytest.mark.parametrize("bug", PLANTED)
def test_every_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((AssertionError, IrnnError, RuntimeError)):
        check_cell(mutated(*PLANTED[bug]), monkeypatch)
