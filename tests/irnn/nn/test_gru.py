"""The GRU from its float self to integers: what is its own beside what every cell is tested for."""

from __future__ import annotations

import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import irnn
from irnn import qat
from irnn.errors import IrnnError
from irnn.models.sequence import SequenceModel, random_layer
from irnn.nn.cells import CELLS, gru
from irnn.nn.cells.base import Cell
from irnn.program import Scan
from tests.irnn.wiring.test_converted_programs import assert_all_equal
from tests.support.models import ids, language_model, quantized, quantized_layer, wired

# The oracle's stacks have one scale for embedding and output layer, as bits above 4 have.
NARROW = irnn.QuantConfig(weight=4, embedding=6, logits_weight=6, activation=6, hidden=6, preactivation=10, cell=12)
TERNARY = irnn.QuantConfig(weight="ternary")
BITS = pytest.mark.parametrize(
    "quant", [irnn.QuantConfig(), NARROW, TERNARY], ids=["8 bits", "4 and 6 bits", "ternary"]
)


@BITS
@pytest.mark.parametrize("norm", [None, "mad", "layer"])
def test_evaluation_is_the_programs_integers(norm: str | None, quant: irnn.QuantConfig) -> None:
    model = quantized(language_model(cell="gru", norm=norm, layers=2), quant)
    program, tokens = irnn.convert(model), ids(3, 20)
    logits_i32, state = program.run(tokens.numpy())
    logits, evaluated = model(tokens)
    assert torch.equal(logits, torch.from_numpy(logits_i32) * program.logits_scale)
    assert set(state) == {"gru.0.h", "gru.1.h"}
    for name, value in state.items():
        assert value.dtype == np.int16
        assert np.array_equal(value, evaluated[name].numpy())
    assert_all_equal(program)


def test_stacks_in_both_directions_and_step_by_step() -> None:
    model = quantized_layer(cell="gru", bidirectional=True, num_layers=2)
    program, x = irnn.convert(model), model.integer_input(torch.randn(2, 11, 9))
    h, _ = program.run(x.numpy())
    assert (h.shape, h.dtype) == ((2, 11, 32), np.int8)
    assert np.array_equal(h, model(x)[0].numpy())
    model = quantized_layer(cell="gru")
    program, x = irnn.convert(model), model.integer_input(torch.randn(2, 11, 9)).numpy()
    whole, last = program.run(x)
    state = None
    for t in range(x.shape[1]):
        h, state = program.step(x[:, t], state)
        assert np.array_equal(h, whole[:, t])
    assert np.array_equal(state["gru.0.h"], last["gru.0.h"])


def rms_error(cell_bits: int) -> float:
    """Of an integer GRU whose update gate is at about 0.98, against torch's."""
    torch.manual_seed(0)
    theirs, x = torch.nn.GRU(10, 16, batch_first=True), torch.randn(8, 100, 10)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(2)
        theirs.bias_ih_l0[16:32] += 4
        want, _ = theirs(x)
    model = random_layer(10, 16, cell="gru")
    model.recurrent.load_state_dict(theirs.state_dict())
    model = prepared(model, x, irnn.QuantConfig(cell=cell_bits))
    program = irnn.convert(model)
    y, _ = program.run(model.integer_input(x).numpy())
    value = program.values[program.outputs[0]]
    return float(np.sqrt((((y - float(value.zero_point)) * value.scale - want.numpy()) ** 2).mean()))


def prepared(model: SequenceModel, x: torch.Tensor, quant: irnn.QuantConfig) -> SequenceModel:
    qat.prepare(model, quant, irnn.PwlConfig(), "all")
    qat.calibrate(model, [x])
    return model.eval()


def test_slow_gates_need_a_state_of_sixteen_bits() -> None:
    """Half a step of 8 bits swallows what a gate of 0.98 lets through: the error is twice that of 16 bits and more."""
    assert rms_error(16) < 0.008
    assert rms_error(8) > 0.013


def test_the_state_is_read_at_eight_bits_and_kept_at_sixteen() -> None:
    program = irnn.convert(quantized_layer(cell="gru"))
    assert program.states == {"gru.0.h": irnn.program.State("int16", (16,), 0)}
    (scan,) = (item for item in program.nodes if isinstance(item, Scan))
    ops = [node.op for node in scan.body]
    assert (ops.count("residual"), ops.count("complement"), ops.count("linear")) == (2, 1, 1)
    before, after = scan.states["gru.0.h"]
    product = next(node for node in scan.body if node.op == "linear")
    read = next(node for node in scan.body if node.output == product.inputs[0])
    assert (read.op, read.inputs, program.values[read.output].dtype) == ("residual", (before,), "int8")
    (collected,) = scan.outputs.values()
    written = next(node for node in scan.body if node.output == collected)
    assert (written.op, written.inputs) == ("residual", (after,))


@pytest.mark.parametrize("norm", [None, "mad", "layer"])
def test_the_training_simulation_is_close_to_the_integers(norm: str | None) -> None:
    """A few steps: a gate on another side of a rounding is one of its own steps off, which h remembers for a while."""
    model = quantized(language_model(cell="gru", norm=norm))
    found = qat.simulation_mismatch(model, ids(64, 4 if norm is None else 1))
    scale = float(model.gru.layers[0].cells.forward_cell.cell.qparams()[0][0])
    assert found["cell"]["max_steps"] * scale < 4 * (2 / 255 + 1 / 127)


def test_float_programs_hold_it_too() -> None:
    program = irnn.float_program(quantized_layer(cell="gru", norm="mad"))
    assert {"complement", "sigmoid", "tanh", "mad_norm"} <= {node.op for node in program.walk()}


def test_settings_and_loads() -> None:
    """A network takes torch's GRU under its own name, and a record is refused where it does not fit."""
    theirs = torch.nn.GRU(24, 24)
    model = language_model(cell="gru")
    entries = {name: value for name, value in model.state_dict().items() if not name.startswith("gru.")}
    model.load_state_dict(entries | {f"gru.{name}": value for name, value in theirs.state_dict().items()})
    assert torch.equal(model.gru.weight_hh_l0, theirs.weight_hh_l0)
    done = quantized(model)
    other = language_model(cell="gru", seed=1)
    qat.prepare(other, replace(irnn.QuantConfig(), cell=12), irnn.PwlConfig(), "all")
    with pytest.raises(IrnnError, match=r"trained for cell=16, not 12"):
        other.load_state_dict(done.state_dict())
    with pytest.raises(IrnnError, match=r"does not fit LanguageModel: missing: gru\.layers"):
        other.load_state_dict(language_model().state_dict())


def test_an_unknown_cell_or_option_is_refused_with_the_list() -> None:
    with pytest.raises(IrnnError, match="unknown cell 'rnn'; allowed are gru, lstm"):
        irnn.LanguageModelConfig(10, 4, 4, cell="rnn")
    with pytest.raises(IrnnError, match=r"proj_size=3: no option of the cell 'gru'; it has none"):
        random_layer(5, 8, cell="gru", proj_size=3)
    with pytest.raises(IrnnError, match=r"GRU sizes must be positive"):
        irnn.GRU(0, 4)
    with pytest.raises(IrnnError, match=r"the state is a tuple of \['Tensor'\]; GRU takes one tensor, h0"):
        irnn.GRU(3, 4)(torch.zeros(2, 1, 3), (torch.zeros(1, 1, 4),))


# One bug at a time in the cell's own text: torch's GRU, or the oracle that follows its wiring, must notice each.
PLANTED = {
    "z and 1 - z exchanged": (
        "a.multiply(a.complement(z), n), a.multiply(z, h)", "a.multiply(z, n), a.multiply(a.complement(z), h)"
    ),
    "the reset gate multiplies W_x x": ("x_n, a.multiply(r, h_n)", "h_n, a.multiply(r, x_n)"),
    "n reads the rows of z": ("(a.split(part, 3)[2] for part", "(a.split(part, 3)[1] for part"),
    "r and z exchanged": ("r, z = a.gates", "z, r = a.gates"),
    "the state is the output": ("a.residual(self._hidden[0], h), h\n", "*2 * (a.residual(self._hidden[0], h),),\n"),
    "the state is kept at eight bits": (
        'StateSpec(f"{name}.h", self.hidden_size, self.cell)',
        'StateSpec(f"{name}.h", self.hidden_size, self._hidden[0])',
    ),
    "the product reads sixteen bits": ("a.linear(self.w_h, a.residual(self._hidden[0], h))", "a.linear(self.w_h, h)"),
    "W_x x left out of n": ("a.requantize(self.candidate, x_n, a.mul", "a.requantize(self.candidate, a.mul"),
    "one table for both gates": ('Activation("sigmoid", gate_input, 1)', 'Activation("sigmoid", gate_input, 0)'),
}  # fmt: skip


def mutated(old: str, new: str) -> type[Cell]:
    text = Path(gru.__file__).read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in the cell"
    copy = types.ModuleType("irnn.nn.cells.gru_copy")
    exec(compile(text.replace(old, new), "gru.py (mutated)", "exec"), copy.__dict__)
    return copy.GRUCell


def check_cell(cell: type[Cell], monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal to torch's in float; in integers equal to the oracle of the contract."""
    monkeypatch.setitem(CELLS, "gru", cell)
    torch.manual_seed(0)
    theirs, ours = torch.nn.GRU(9, 16), irnn.GRU(9, 16)
    for parameter in theirs.parameters():
        parameter.data.mul_(3)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(5, 3, 9)
    torch.testing.assert_close(wired(ours)(x)[0], theirs(x)[0], rtol=0, atol=1e-6)
    assert_all_equal(irnn.convert(quantized_layer(cell="gru")))


def test_the_cell_equals_torch_and_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    check_cell(gru.GRUCell, monkeypatch)


@pytest.mark.parametrize("bug", PLANTED)
def test_every_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((AssertionError, IrnnError, RuntimeError)):
        check_cell(mutated(*PLANTED[bug]), monkeypatch)
