"""The Mogrifier cell from its float self to integers: what is its own beside what every cell is tested for."""

from __future__ import annotations

import types
from pathlib import Path

import numpy as np
import pytest
import torch

import irnn
from irnn import qat
from irnn.errors import IrnnError
from irnn.models.sequence import SequenceModel, random_layer
from irnn.nn.cells import CELLS, mogrifier
from irnn.nn.cells.mogrifier import MogrifierCell
from irnn.nn.recurrent import Recurrent
from irnn.program import Node, Program, Scan
from irnn.program.check import ranges
from irnn.wiring.simulate import Simulation
from tests.irnn.wiring.test_converted_programs import NARROW, assert_equal_to_evaluator
from tests.support.models import assert_every_weight_learns, ids, language_model, quantized, quantized_layer, wired

SMALL = {"rounds": 3, "rank": 6}


@pytest.mark.parametrize(
    ("rounds", "quant"), [(3, irnn.QuantConfig()), (0, NARROW)], ids=["three rounds", "no round, 4 and 6 bits"]
)
def test_evaluation_is_the_programs_integers(rounds: int, quant: irnn.QuantConfig) -> None:
    """Against the interpreter and the independent evaluator, from the first state and from random ones."""
    options = {"rounds": rounds, "rank": 5}
    model = quantized(language_model(cell="mogrifier", layers=2, size=10, cell_options=options), quant)
    program, tokens = irnn.convert(model), ids(2, 6)
    logits_i32, state = program.run(tokens.numpy())
    logits, evaluated = model(tokens)
    assert torch.equal(logits, torch.from_numpy(logits_i32) * program.logits_scale)
    assert {name: value.dtype for name, value in state.items()} == {
        f"mogrifier.{k}.{s}": dtype for k in (0, 1) for s, dtype in (("h", np.int8), ("c", np.int16))
    }
    assert all(np.array_equal(value, evaluated[name].numpy()) for name, value in state.items())
    assert_equal_to_evaluator(program)


def test_stacks_in_both_directions_and_step_by_step() -> None:
    model = quantized_layer(cell="mogrifier", bidirectional=True, rounds=2, rank=4)
    program, x = irnn.convert(model), model.integer_input(torch.randn(2, 5, 9))
    assert np.array_equal(program.run(x.numpy())[0], model(x)[0].numpy())
    assert_equal_to_evaluator(program)
    model = quantized_layer(cell="mogrifier", rounds=1, rank=4)
    program, x = irnn.convert(model), model.integer_input(torch.randn(2, 5, 9)).numpy()
    (whole, last), state = program.run(x), None
    for t in range(x.shape[1]):
        h, state = program.step(x[:, t], state)
        assert np.array_equal(h, whole[:, t])
    assert all(np.array_equal(state[name], last[name]) for name in last)


def test_no_gate_is_anything_but_integers() -> None:
    program = irnn.convert(quantized_layer(cell="mogrifier", rounds=2, rank=4))
    assert {value.dtype for value in program.values.values()} == {"int8", "int16", "int32"}
    assert {tensor.data.dtype.kind for tensor in program.tensors.values()} == {"i"}
    (cap,) = (node for node in program.walk() if node.op == "minimum")
    assert ranges(program)[cap.output] == (-128, 127)
    gates = [program.values[name] for node in program.walk() if node.op == "multiply" for name in node.inputs[:1]]
    assert {(gate.scale, gate.zero_point) for gate in gates} == {(1 / 255, -128)}


def test_every_weight_has_a_gradient_in_every_stage() -> None:
    options = {"rounds": 2, "rank": 4}
    assert_every_weight_learns(language_model(cell="mogrifier", size=10, dropout=0.0, cell_options=options))


def test_float_programs_hold_it_too() -> None:
    program = irnn.float_program(random_layer(5, 8, cell="mogrifier", **SMALL))
    assert {"minimum", "complement", "scale", "sigmoid", "tanh"} <= {node.op for node in program.walk()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": -1}, r"rounds=-1 must be a whole number, at least 0"),
        ({"rounds": 2.5}, r"rounds=2.5 must be a whole number, at least 0"),
        ({"rank": 0}, r"rank=0 must be a whole number, at least 1"),
        ({"norm": "mad"}, r"norm='mad': a Mogrifier cell has none"),
        ({"proj_size": 3}, r"proj_size=3: no option of the cell 'mogrifier'; it has rounds, rank"),
    ],
)
def test_bad_options_are_one_line(options: dict, message: str) -> None:
    with pytest.raises(IrnnError, match=message):
        random_layer(5, 8, cell="mogrifier", **options)


def test_torch_has_none() -> None:
    with pytest.raises(IrnnError, match="torch has no Mogrifier LSTM, and LSTM is none"):
        MogrifierCell.from_torch(torch.nn.LSTM(3, 4), 0, 0, hidden=MogrifierCell.output_site(4))


def by_formula(cell: MogrifierCell, sequence: torch.Tensor) -> torch.Tensor:
    """lamb's formulas in real numbers, by the cell's parameters: x ``[time, batch, input]`` -> h of every step."""
    p = dict(cell.named_parameters())
    h = c = sequence.new_zeros(sequence.shape[1], cell.hidden_size)
    found = []
    for x in sequence:
        for k in range(len(cell.rounds)):
            name = f"rounds.{k}"
            read, changed = (h, x) if k % 2 == 0 else (x, h)
            low = read @ p[f"{name}.left.weight"].T
            changed = changed * 2 * torch.sigmoid(low @ p[f"{name}.right.weight"].T + p[f"{name}.right.bias_0"])
            x, h = (changed, h) if k % 2 == 0 else (x, changed)
        i, f, g, o = (x @ p["w_x.weight"].T + p["w_x.bias_0"] + h @ p["w_h.weight"].T).chunk(4, -1)
        f, o = torch.sigmoid(f), torch.sigmoid(o)
        c = f * c + torch.minimum(1 - f, torch.sigmoid(i)) * torch.tanh(g)
        h = o * torch.tanh(c)
        found.append(h)
    return torch.stack(found)


class ByContract:
    """A layer's integers as docs/arithmetic.md has them, in Python's unbounded integers, by the program's numbers."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.tensors = {name: tensor.data.reshape(len(tensor.data), -1).tolist()
                        for name, tensor in program.tensors.items()}  # fmt: skip
        (scan,) = (item for item in program.nodes if isinstance(item, Scan))
        self.nodes = {node.output: node for node in scan.body}
        (self.x,) = scan.sequences

    def product(self, name: str, operand: list[int]) -> list[int]:
        weight, bias = (self.tensors[f"{name}.{role}"] for role in ("weight", "bias"))
        return [
            sum(w * v for w, v in zip(row, operand, strict=True)) + b for row, (b,) in zip(weight, bias, strict=True)
        ]

    def rounded(self, name: str, *terms: list[int], low: int, high: int) -> list[int]:
        node: Node = self.nodes[name]
        total = [self.program.values[name].zero_point] * len(terms[0])
        for k, term in enumerate(terms):
            m, n = (self.tensors[node.tensors[f"{role}_{k}"]] for role in ("multiplier", "shift"))
            for row, value in enumerate(term):
                shift = n[row % len(n)][0]
                total[row] += (2 * value * m[row % len(m)][0] + 2**shift) // 2 ** (shift + 1)
        return [min(max(v, low), high) for v in total]

    def table(self, name: str, x: list[int], low: int = -128) -> list[int]:
        knots, slopes, intercepts = (
            [v for (v,) in self.tensors[f"{name}.{role}"]] for role in ("knots", "slopes", "intercepts")
        )
        shift, found = self.nodes[name].attributes["shift"], []
        for value in x:
            p = sum(knot <= value for knot in knots) - 1
            y = ((value - knots[p]) * slopes[p] + intercepts[p] + 2 ** (shift - 1)) // 2**shift
            found.append(min(max(y, low), 127))
        return found

    def run(self, sequence: np.ndarray, rounds: int, zero_x: int) -> np.ndarray:
        prefix, states = "mogrifier.0", self.program.states
        h, c = ([states[f"{prefix}.{s}"].initial] * states[f"{prefix}.{s}"].shape[0] for s in "hc")
        zero, found = {"x": zero_x, "h": states[f"{prefix}.h"].initial}, []
        zero_h = zero["h"]
        for row in sequence.tolist():
            now, zeros = {"x": row, "h": h}, dict(zero)
            for k in range(rounds):
                read, changed = "hx" if k % 2 == 0 else "xh"
                name = f"{prefix}.rounds.{k}"
                low = self.rounded(f"{name}.factor", self.product(f"{name}.left", now[read]), low=-128, high=127)
                s = self.rounded(f"{name}.preactivation", self.product(f"{name}.right", low), low=-32768, high=32767)
                gate = self.table(f"{name}.gate", s)
                terms = [(q + 128) * (v - zeros[changed]) for q, v in zip(gate, now[changed], strict=True)]
                now[changed] = self.rounded(f"{name}.gated", terms, low=-128, high=127)
                zeros[changed] = self.program.values[f"{name}.gated"].zero_point
            products = [self.product(f"{prefix}.w_{s}", now[s]) for s in "xh"]
            s = self.rounded(f"{prefix}.preactivation", *products, low=-32768, high=32767)
            size = len(h)
            parts = [s[n * size : (n + 1) * size] for n in range(4)]
            i, f, g, o = (
                self.table(f"{prefix}.gate_{gate}", part, -127 if gate == "g" else -128)
                for gate, part in zip("ifgo", parts, strict=True)
            )
            i = [min(-1 - p, q) for p, q in zip(f, i, strict=True)]
            kept = [(p + 128) * q for p, q in zip(f, c, strict=True)]
            new = [(p + 128) * q for p, q in zip(i, g, strict=True)]
            c = self.rounded(f"{prefix}.cell", kept, new, low=-32768, high=32767)
            t = self.table(f"{prefix}.tanh_c", c, -127)
            h = self.rounded(
                "mogrifier.0.hidden", [(p + 128) * q for p, q in zip(o, t, strict=True)], low=-128, high=127
            )
            found.append(h)
        assert self.program.values["mogrifier.0.hidden"].zero_point == zero_h
        return np.array(found, np.int8)


def check_cell(cell: type[MogrifierCell], monkeypatch: pytest.MonkeyPatch) -> None:
    """In float equal to lamb's formulas; in integers equal to the contract's."""
    monkeypatch.setitem(CELLS, "mogrifier", cell)
    torch.manual_seed(0)
    stack = Recurrent("mogrifier", 9, 16, **SMALL)
    for parameter in stack.parameters():
        parameter.data.mul_(3)
    x = torch.randn(5, 3, 9)
    expected = by_formula(stack.layers[0].cells["forward_cell"], x)
    torch.testing.assert_close(wired(stack)(x)[0], expected, rtol=0, atol=1e-6)
    model: SequenceModel = quantized_layer(cell="mogrifier", **SMALL)
    program = irnn.convert(model)
    features = np.random.default_rng(0).integers(-128, 128, (1, 6, 9)).astype(np.int8)
    h, _ = program.run(features)
    assert np.array_equal(h[0], ByContract(program).run(features[0], 3, program.inputs["x"].zero_point))


def test_the_cell_equals_its_formulas_and_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    check_cell(MogrifierCell, monkeypatch)


# One bug at a time in the cell's own text: the formulas or the contract must notice each.
PLANTED = {
    "no factor 2": ("a.scale(gate, 2.0)", "gate"),
    "x is gated first by itself": ("x = gating.wire(a, h, x)", "x = gating.wire(a, x, x)"),
    "rounds change places": ("if k % 2:", "if not k % 2:"),
    "no cap": ("i = a.minimum(a.complement(f), i)", "i = i"),
    "the cap of the wrong gate": ("a.minimum(a.complement(f), i)", "a.minimum(a.complement(o), i)"),
    "the cap is f": ("a.minimum(a.complement(f), i)", "a.minimum(f, i)"),
    "the former h is read ungated": ("for k, gating in enumerate(self.rounds):",
                                     "before = h\n        for k, gating in enumerate([*self.rounds][:-1]):"),
    "f and i change places": ("i, f, g, o = a.gates", "f, i, g, o = a.gates"),
    "one gate's table for all": ("Activation(f, self.preactivation, k)", "Activation(f, self.preactivation, 0)"),
    "the state is c": ("return h, h, c\n", "return h, c, c\n"),
    "the factor at sixteen bits": ('QuantSite("activation", rank)', 'QuantSite("preactivation", rank)'),
}  # fmt: skip


@pytest.mark.parametrize("bug", PLANTED)
def test_every_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = PLANTED[bug]
    text = Path(mogrifier.__file__).read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in the cell"
    copy = types.ModuleType("irnn.nn.cells.mogrifier_copy")
    exec(compile(text.replace(old, new), "mogrifier.py (mutated)", "exec"), copy.__dict__)
    with pytest.raises((AssertionError, IrnnError, RuntimeError)):
        check_cell(copy.MogrifierCell, monkeypatch)


def test_the_training_simulation_is_close_to_the_integers() -> None:
    model = quantized(language_model(cell="mogrifier", size=10, cell_options={"rounds": 2, "rank": 4}))
    found = qat.simulation_mismatch(model, ids(16, 3))
    scale = float(model.recurrent.layers[0].cells["forward_cell"].cell.qparams()[0][0])
    assert found["cell"]["max_steps"] * scale < 4 * (2 / 255 + 1 / 127)


@pytest.mark.parametrize("rounds", [0, 1, 4, 5])
def test_all_steps_at_once_are_the_wiring(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs, last states and gradients, with and without lengths; in double precision."""
    torch.manual_seed(0)
    stack = Recurrent("mogrifier", 5, 7, num_layers=2, rounds=rounds, rank=3).double()
    for lengths in (None, torch.tensor([6, 1, 4])):
        found = []
        for at_once in (True, False):
            if not at_once:
                monkeypatch.setattr(MogrifierCell, "fused", classmethod(lambda cls, cells: None))
            generator = torch.Generator().manual_seed(1)
            x = torch.randn(6, 3, 5, dtype=torch.double, generator=generator).requires_grad_()
            start = {spec.name: torch.randn(3, 7, dtype=torch.double, generator=generator).requires_grad_()
                     for spec in stack.state_specs("mogrifier")}  # fmt: skip
            simulation = Simulation(start, training=True, observing=False)
            simulation.ragged(lengths)
            y = stack.wire(simulation, x, "mogrifier")
            y = y if lengths is None else simulation.mask(y)
            stack.zero_grad()
            (y.square().sum() + sum(s.square().sum() for s in simulation.state.values())).backward()
            gradients = [p.grad.clone() for p in (*stack.parameters(), *start.values())]
            found.append([y, *simulation.state.values(), x.grad, *gradients])
            monkeypatch.undo()
        for expected, mine in zip(*found, strict=True):
            torch.testing.assert_close(mine, expected, rtol=0, atol=1e-11)
