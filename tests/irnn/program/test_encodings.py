"""Encodings of constants: packing, ranges, and format version 2, which is written where version 1 cannot say it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import irnn
from irnn.errors import IrnnError
from irnn.program import Program, Tensor
from irnn.program.document import canonical, format_version
from irnn.program.encodings import ENCODINGS, decode, encode, pack, unpack
from irnn.program.interpreter import Interpreter
from irnn.program.sets import ProgramSet
from irnn.program.storage import PROGRAM_FILE, program_hash
from tests.support.random_programs import Spec, random_inputs, random_program

FIELDS = {"int4": 4, "int3": 3, "int2": 2, "ternary": 2, "binary": 1, "codebook": 3}
WEIGHT = "layer0.forward.h.weight"


def drawn(name: str, bits: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Integers over the whole range of the encoding."""
    rng, encoding = np.random.default_rng(seed), ENCODINGS[name]
    if name == "binary":
        return rng.choice(np.array([-1, 1], np.int8), shape)
    if name == "codebook":
        return rng.choice(rng.integers(-32768, 32768, 1 << bits).astype(np.int16), shape)
    return rng.integers(encoding.low, encoding.high, shape, endpoint=True).astype(encoding.dtype)


@given(st.sampled_from([1, 2, 3, 4, 5, 8]), st.integers(1, 4), st.integers(1, 23), st.integers(0, 2**32 - 1))
def test_packing_is_exact(bits: int, rows: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    signed = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), (rows, columns)).astype(np.int8)
    packed = pack(signed, bits)
    assert packed.shape == (rows, -(-columns * bits // 8))
    np.testing.assert_array_equal(unpack(packed, bits, columns), signed, strict=True)
    unsigned = rng.integers(0, 1 << bits, (rows, columns)).astype(np.uint8)
    np.testing.assert_array_equal(unpack(pack(unsigned, bits), bits, columns, signed=False), unsigned, strict=True)


def test_the_layout_is_the_documented_one() -> None:
    assert pack(np.array([[1, -2, 3]], np.int8), 3).tolist() == [[0b11_110_001, 0b0]]
    binary, _ = encode(np.array([[1, -1, -1, 1, 1, 1, 1, 1, -1]], np.int8), 1, "binary")
    assert binary.tolist() == [[0b1111_1001, 0]]
    places, codebook = encode(np.array([[-128, 4, 1, 4]], np.int16), 2, "codebook")
    assert codebook == [-128, 1, 4]
    assert places.tolist() == [[0b10_01_10_00]]


@given(st.sampled_from(sorted(ENCODINGS)), st.integers(1, 3), st.integers(1, 19), st.integers(0, 2**32 - 1))
def test_what_is_encoded_decodes_equal(name: str, rows: int, columns: int, seed: int) -> None:
    bits = FIELDS.get(name, 8)
    if ENCODINGS[name].low is None:
        data = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    else:
        data = drawn(name, bits, (rows, columns), seed)
    stored, codebook = encode(data, bits, name)
    np.testing.assert_array_equal(decode(stored, bits, name, columns, codebook), data, strict=True)
    if name in FIELDS:
        assert stored.shape == (rows, -(-columns * FIELDS[name] // 8))
        assert Tensor(data, bits, name).storage_bits == FIELDS[name]


@pytest.mark.parametrize(
    ("dtype", "bits", "encoding"),
    [("int8", 8, "int8"), ("int8", 5, "int8"), ("int8", 4, "int4"), ("int8", 3, "int4"), ("int8", 2, "int2"),
     ("int16", 16, "int16"), ("int32", 32, "int32"), ("uint16", 16, "uint16"), ("float32", 32, "float32")],
)  # fmt: skip
def test_an_encoding_that_is_not_given_is_that_of_version_1(dtype: str, bits: int, encoding: str) -> None:
    assert Tensor(np.zeros((1, 1), dtype), bits).encoding == encoding


def with_weight(tensor: Tensor) -> Program:
    program = random_program(Spec(hidden=3))
    assert WEIGHT in program.tensors
    return replace(program, tensors=program.tensors | {WEIGHT: tensor})


def weight(name: str, seed: int = 0) -> Tensor:
    bits = FIELDS.get(name, 8)
    data = drawn(name, bits, (12, 3), seed)
    if name in ("int8", "int4", "int3", "int2"):
        data = np.maximum(data, -(2 ** (bits - 1)) + 1)
    return Tensor(np.clip(data, -200, 200), bits, name)


@pytest.mark.parametrize(
    ("name", "version"),
    [("int8", 1), ("int4", 1), ("int2", 1), ("int3", 2), ("ternary", 2), ("binary", 2), ("codebook", 2)],
)
def test_version_2_is_written_where_version_1_cannot_say_it(name: str, version: int, tmp_path: Path) -> None:
    program = with_weight(weight(name))
    program.check()
    assert format_version(program) == version
    program.save(tmp_path / "p")
    document = json.loads((tmp_path / "p" / PROGRAM_FILE).read_text())
    assert document["format_version"] == version
    assert document.get("needs_irnn") == (None if version == 1 else "0.2.0")
    assert ("encoding" in document["tensors"][WEIGHT]) == (version == 2)
    loaded = irnn.load(tmp_path / "p")
    assert loaded.tensors[WEIGHT].encoding == name
    np.testing.assert_array_equal(loaded.tensors[WEIGHT].data, program.tensors[WEIGHT].data, strict=True)
    assert program_hash(loaded) == program_hash(program)
    assert f"packed in {FIELDS[name]}" in loaded.describe() if name in FIELDS else True
    inputs = random_inputs(program, 2, 3)
    np.testing.assert_array_equal(loaded.run(inputs)[0], program.run(inputs)[0], strict=True)


def test_the_encoding_is_part_of_the_hash() -> None:
    data = np.sign(weight("int2").data).astype(np.int8)
    assert program_hash(with_weight(Tensor(data, 2))) != program_hash(with_weight(Tensor(data, 2, "ternary")))


def changed(tensor: Tensor, value: int) -> Tensor:
    data = tensor.data.copy()
    data[1, 1] = value
    return Tensor(data, tensor.bits, tensor.encoding)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (changed(weight("ternary"), -2), "holds -2, ternary reaches from -1 to 1"),
        (changed(weight("int3"), 4), "holds 4, int3 reaches from -4 to 3"),
        (changed(weight("int4"), 8), "holds 8, int4 reaches from -8 to 7"),
        (changed(weight("int3"), -4), "a weight leaves the range of its 3 bits"),
        (changed(weight("int8"), -128), "a weight leaves the range of its 8 bits"),
        (changed(weight("binary"), 0), "holds 0, binary is -1 or 1"),
        (Tensor(np.arange(36, dtype=np.int16).reshape(12, 3), 4, "codebook"), "36 different values, a codebook of 4"),
        (Tensor(np.ones((12, 3), np.int16), 4, "ternary"), "is int16, ternary holds int8"),
        (Tensor(np.ones((12, 3), np.int16), 16), "a weight is int16; allowed are int8, int4, .*codebook"),
        (Tensor(np.ones((12, 3), np.int64), 64), "is int64; the known encodings are int8, int4"),
    ],
)  # fmt: skip
def test_the_proof_holds_each_tensor_to_its_encoding(tensor: Tensor, message: str) -> None:
    with pytest.raises(IrnnError, match=message) as error:
        with_weight(tensor).check()
    assert "\n" not in str(error.value)


def test_what_does_not_fit_its_encoding_is_not_stored(tmp_path: Path) -> None:
    with pytest.raises(IrnnError, match="a tensor holds 3, ternary reaches from -1 to 1: it cannot be stored"):
        with_weight(changed(weight("ternary"), 3)).save(tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_an_unknown_encoding_is_refused_with_the_known_ones() -> None:
    with pytest.raises(IrnnError, match="unknown encoding 'int5'; known are int8, int4, int3, int2, ternary, binary, "):
        Tensor(np.zeros((1, 1), np.int8), 5, "int5")


def rewritten(folder: Path, change: dict) -> None:
    """A document with other entries and the right hash: what a later irnn may have written."""
    path = folder / PROGRAM_FILE
    document = json.loads(path.read_text()) | change
    document.pop("sha256")
    document["sha256"] = hashlib.sha256(canonical(document)).hexdigest()
    path.write_text(json.dumps(document))


def test_an_unknown_encoding_on_disk_is_refused(tmp_path: Path) -> None:
    with_weight(weight("ternary")).save(tmp_path / "p")
    document = json.loads((tmp_path / "p" / PROGRAM_FILE).read_text())
    document["tensors"][WEIGHT]["encoding"] = "posit"
    rewritten(tmp_path / "p", {"tensors": document["tensors"]})
    with pytest.raises(IrnnError, match=r"p: unknown encoding 'posit'; known are int8"):
        irnn.load(tmp_path / "p")


def test_a_future_format_says_which_irnn_reads_it(tmp_path: Path) -> None:
    program = random_program(Spec())
    program.save(tmp_path / "p")
    rewritten(tmp_path / "p", {"format_version": 3, "needs_irnn": "0.7.1"})
    message = r"has program format 3, this irnn reads 1 and 2; irnn 0\.7\.1 or later reads it"
    with pytest.raises(IrnnError, match=message):
        irnn.load(tmp_path / "p")
    ProgramSet({"a": program}).save(tmp_path / "s")
    index = tmp_path / "s" / "programs.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"format_version": 2, "needs_irnn": "0.8.0"}))
    with pytest.raises(IrnnError, match=r"has program format 2, this irnn reads 1; irnn 0\.8\.0 or later reads it"):
        irnn.load(tmp_path / "s")


def test_interpreter_computes_with_every_encoding() -> None:
    """The same integers whatever they are packed as."""
    data = np.sign(weight("int2").data).astype(np.int8)
    data[data == 0] = 1
    inputs = random_inputs(with_weight(Tensor(data, 8)), 2, 3)
    expected = Interpreter(with_weight(Tensor(data, 8))).run(inputs)[0]
    for tensor in (Tensor(data, 2), Tensor(data, 3, "int3"), Tensor(data, 2, "ternary"), Tensor(data, 1, "binary"),
                   Tensor(data.astype(np.int16), 1, "codebook")):  # fmt: skip
        np.testing.assert_array_equal(Interpreter(with_weight(tensor)).run(inputs)[0], expected, strict=True)
