"""Programs on disk and the proof that they are integer-only."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import irnn
from irnn.program import Tensor
from irnn.program.__main__ import main
from irnn.program.check import ranges
from irnn.program.encodings import pack, unpack
from irnn.program.sets import ProgramSet
from irnn.program.storage import PROGRAM_FILE, TENSORS_FILE, program_hash
from tests.support.models import ids, language_model, quantized, quantized_layer


@pytest.fixture(scope="module")
def program():
    bits = 4
    return irnn.convert(
        quantized(language_model(norm="mad"), irnn.QuantConfig(weight=bits, embedding=bits, logits_weight=bits))
    )


@given(st.sampled_from([2, 4]), st.integers(1, 4), st.integers(1, 23), st.integers(0, 2**32 - 1))
def test_packing_is_exact(bits, rows, columns, seed):
    high = 2 ** (bits - 1) - 1
    data = np.random.default_rng(seed).integers(-high - 1, high + 1, (rows, columns), dtype=np.int8)
    packed = pack(data, bits)
    assert packed.shape == (rows, -(-columns * bits // 8))
    assert np.array_equal(unpack(packed, bits, columns), data)


def test_packing_layout_is_the_documented_one():
    assert pack(np.array([[1, -2, 3]], np.int8), 4).tolist() == [[0x1 | 0xE << 4, 0x3]]
    assert pack(np.array([[1, 0, -1, 1, -1]], np.int8), 2).tolist() == [[0b01_11_00_01, 0b11]]


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_saved_programs_load_equal(tmp_path, bits):
    quant = irnn.QuantConfig(weight=bits, embedding=bits, logits_weight=bits)
    program = irnn.convert(quantized(language_model(), quant))
    program.metadata["note"] = "ä"
    program.save(tmp_path / "p")
    loaded = irnn.load(tmp_path / "p")
    assert loaded.nodes == program.nodes
    assert (loaded.values, loaded.states, loaded.inputs, loaded.outputs, loaded.metadata) == (
        program.values, program.states, program.inputs, program.outputs, program.metadata,
    )  # fmt: skip
    assert set(loaded.tensors) == set(program.tensors)
    for name, tensor in program.tensors.items():
        assert np.array_equal(loaded.tensors[name].data, tensor.data)
        assert loaded.tensors[name].data.dtype == tensor.data.dtype
    assert program_hash(loaded) == program_hash(program)
    weights = 2 * 4 * 24 * 24 + 60 * 24
    stored = {8: 1, 4: 0.5, 3: 0.5, 2: 0.25}[bits] * weights
    rows = 60 * 5 * (bits < 8)  # below 8 bits the table's rows have a multiplier and a shift each
    # Per row of W_x and W_h a bias, a multiplier and a shift; the logits' bias; five tables; cell and hidden rescales.
    assert program.size_bytes() == stored + rows + 2 * 96 * 9 + 60 * 4 + 5 * 16 * 10 + 3 * 5
    assert (tmp_path / "p" / TENSORS_FILE).stat().st_size - program.size_bytes() < 10_000  # the header


def test_float_programs_are_stored_and_refused_by_the_proof(tmp_path):
    model = language_model(norm="layer")
    program = irnn.float_program(model)
    program.save(tmp_path / "f")
    loaded = irnn.load(tmp_path / "f")
    assert loaded.kind == "float"
    assert "embedding.table" in loaded.tensors
    assert program.nodes[-1].tensors["weight"] == "embedding.table"  # tied: stored once
    with pytest.raises(irnn.IrnnError, match=r"decoder\.bias is float32.*operation sigmoid"):
        loaded.check()
    with pytest.raises(irnn.IrnnError, match="float"):
        loaded.run(np.zeros((1, 1), np.int64))


def _with_tensor(program, name, data):
    return replace(program, tensors=program.tensors | {name: Tensor(data, program.tensors[name].bits)})


def test_the_proof_names_what_is_wrong(program):
    program.check()
    weight = program.tensors["lstm.0.w_h.weight"].data
    cases = {
        "lstm.0.w_h.weight is float32": ("lstm.0.w_h.weight", weight.astype(np.float32)),
        "leaves the range of its 4 bits": ("lstm.0.w_h.weight", np.full_like(weight, 8)),
        "could overflow int32": ("decoder.bias", np.full(60, 2**31 - 1, np.int32)),
        "multipliers must lie": ("lstm.0.cell.multiplier_0", np.array([2**30 - 1], np.int32)),
        "shifts must lie": ("lstm.0.cell.shift_0", np.array([0], np.int8)),
        "knots must ascend": ("lstm.0.gate_i.knots", program.tensors["lstm.0.gate_i.knots"].data[::-1].copy()),
        "knot -32766": (
            "lstm.0.gate_i.knots",
            np.maximum(program.tensors["lstm.0.gate_i.knots"].data, -32766),
        ),
        "gamma must lie": ("lstm.0.norm_c.gamma", np.full(24, -32768, np.int16)),
        "beta must lie": ("lstm.0.norm_c.beta", np.full(24, 2**30 + 1, np.int32)),
    }
    for message, (name, data) in cases.items():
        with pytest.raises(irnn.IrnnError, match=message.replace(".", r"\.")):
            _with_tensor(program, name, data).check()


def test_ranges_hold_for_extreme_weights_and_zero_rows():
    model = language_model(tie=False)
    with torch.no_grad():
        model.lstm.layers[0].cells["forward_cell"].w_h.weight.copy_(
            torch.sign(model.lstm.layers[0].cells["forward_cell"].w_h.weight)
        )
        model.lstm.layers[0].cells["forward_cell"].w_x.weight[:30] = 0.0
        model.lstm.layers[0].cells["forward_cell"].w_x.weight[30] = 1e-30
        model.lstm.layers[0].cells["forward_cell"].w_x.bias_0[:10] = 5.0
        model.decoder.weight[7] = 0.0
    program = irnn.convert(quantized(model))
    assert set(np.unique(np.abs(program.tensors["lstm.0.w_h.weight"].data))) == {127}
    assert np.abs(program.tensors["lstm.0.w_x.bias"].data.astype(np.int64)).max() <= 2**31 - 1
    logits, _ = program.run(ids().numpy())
    low, high = ranges(program)[program.outputs[0]]
    assert low <= logits.min()
    assert logits.max() <= high


@pytest.mark.parametrize(
    "damage", ["truncate_json", "edit_json", "truncate_tensors", "edit_tensors", "version", "gone"]
)
def test_damaged_programs_are_refused_in_one_line(tmp_path, program, damage):
    folder = tmp_path / "p"
    program.save(folder)
    text, blob = (folder / PROGRAM_FILE).read_text(), (folder / TENSORS_FILE).read_bytes()
    match damage:
        case "truncate_json":
            (folder / PROGRAM_FILE).write_text(text[: len(text) // 2])
        case "edit_json":
            (folder / PROGRAM_FILE).write_text(text.replace('"shift": ', '"shift": 1', 1))
        case "truncate_tensors":
            (folder / TENSORS_FILE).write_bytes(blob[:-1])
        case "edit_tensors":
            (folder / TENSORS_FILE).write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))
        case "version":
            (folder / PROGRAM_FILE).write_text(json.dumps(json.loads(text) | {"format_version": 99}))
        case "gone":
            (folder / TENSORS_FILE).unlink()
    with pytest.raises(irnn.IrnnError) as error:
        irnn.load(folder)
    assert "\n" not in str(error.value)
    assert "export the program again" in str(error.value) or "no readable program" in str(error.value)


def test_saving_replaces_a_program_and_nothing_else(tmp_path, program):
    program.save(tmp_path / "p")
    program.save(tmp_path / "p")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(irnn.IrnnError, match=r"thesis\.txt"):
        program.save(tmp_path / "mine")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "p"]


def test_the_command_line_describes_checks_and_refuses(tmp_path, program, capsys):
    program.save(tmp_path / "p")
    assert main(["describe", str(tmp_path / "p")]) == 0
    listing = capsys.readouterr().out
    for part in ("lstm.0.w_h.weight", "packed in 4", "mad_norm", "scan over time", "zero point"):
        assert part in listing
    assert main(["check", str(tmp_path / "p")]) == 0
    assert main(["describe", str(tmp_path / "none")]) == 1
    assert main(["describe"]) == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize("several", [False, True])
def test_the_module_as_a_script_checks_a_program_and_a_set(tmp_path, program, several):
    (ProgramSet({"a": program, "b": program}) if several else program).save(tmp_path / "p")
    command = [sys.executable, "-m", "irnn.program", "check", str(tmp_path / "p")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    count = (1 + several) * sum(1 for _ in program.walk())
    assert done.stdout.startswith(f"integer-only: {count} operations, ")


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path, program):
    program.save(tmp_path / "p")
    command = [sys.executable, "-m", "irnn.program", "describe", str(tmp_path / "p")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.wait() == 0
        assert process.stderr.read() == b""


def test_inputs_are_checked():
    program = irnn.convert(quantized(language_model()))
    with pytest.raises(irnn.IrnnError, match="holds 60; allowed are 0 to 59"):
        program.run(np.array([[3, 60]]))
    with pytest.raises(irnn.IrnnError, match="holds -1"):
        program.step(np.array([-1]))
    with pytest.raises(irnn.IrnnError, match="shape"):
        program.run(np.array([3]))


def test_feature_programs_declare_their_input_format():
    program = irnn.convert(quantized_layer())
    (value,) = program.inputs.values()
    assert (value.dtype, value.shape, value.low, value.high) == ("int8", (9,), -128, 127)
    assert value.scale > 0


def test_a_value_without_a_range_or_a_scale_is_one_line():
    program = irnn.convert(quantized_layer())
    ((name, value),) = program.inputs.items()
    with pytest.raises(irnn.IrnnError, match=rf"input {name} has no range, and an integer program's inputs need one"):
        ranges(replace(program, inputs={name: replace(value, low=None, high=None)}))
    with pytest.raises(irnn.IrnnError, match="has no single scale"):
        replace(value, scale=None).quantize(np.zeros(3))
