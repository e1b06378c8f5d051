"""ARM kernels and programs under user-mode qemu, whose CPUs fault on an instruction that they do not have."""

from __future__ import annotations

import copy

import numpy as np
import pytest

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

from deploy_tvm import targets
from deploy_tvm.codegen.row_ops import RowOps
from deploy_tvm.codegen.rows import number
from deploy_tvm.remote import emulated
from deploy_tvm.static import bare
from deploy_tvm.targets.disassembly import disassemble, float_instructions
from irnn.arithmetic import fixed_point
from irnn.arithmetic.numpy_ops import NUMPY
from irnn.errors import IrnnError
from tests.deploy_tvm.artefact.test_deploy import SPECS
from tests.deploy_tvm.codegen.test_kernels import (
    ENCODINGS,
    INT32,
    PWL,
    encoded,
    kernel_of,
    piecewise_linear,
    products_of_both_bytes,
    products_of_every_encoding,
    requantizations,
    walsh_products,
    wide_products,
    with_ends,
)
from tests.support.boards import need_bare
from tests.support.compiled import Case, all_elementwise, elementwise, multiply, multiply_joined
from tests.support.random_programs import Spec, multiplier_and_shift, random_inputs, random_program, random_state

ARM = {
    "arm_dotprod": targets.find("cortex_a76"),
    "arm_i8mm": targets.Target("with i8mm", mtriple="aarch64-linux-gnu", mcpu="cortex-a76", mattr=("+i8mm",)),
    "arm_neon": targets.find("cortex_a53"),
    "armv7_neon": targets.find("armv7a"),
}
# Instructions that only the kernels of that name use.
MARKS = {"arm_dotprod": "sdot", "arm_i8mm": "smmla", "arm_neon": "sadalp", "armv7_neon": "vpadal.s16"}
INT16_INPUTS = np.arange(-32768, 32768).astype(np.int16)


@pytest.fixture(params=ARM)
def board(request) -> targets.Target:
    """A target whose code this machine can link and emulate; its parameter names its kernels."""
    target = ARM[request.param]
    need_bare(target)
    assert target.kernels().name == request.param
    return target


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize(("rows", "length"), [(33, 57), (130, 650)])
def test_products_equal_numpy(board: targets.Target, bits: int, rows: int, length: int) -> None:
    kernel, limit = kernel_of(board.kernels(), bits), 2 ** (bits - 1) - 1
    rng = np.random.default_rng(rows * length)
    x = rng.integers(-128, 128, (kernel.tile_vectors, length)).astype(np.int8)
    weight = rng.integers(-limit, limit + 1, (rows, length)).astype(np.int8)
    bias = rng.integers(-(1 << 30), 1 << 30, rows).astype(np.int32)
    expected = x.astype(np.int32) @ weight.T.astype(np.int32) + bias
    for result in multiply(board, kernel, x, weight, bias):
        assert np.array_equal(result, expected)


@pytest.mark.parametrize("bits", [8, 4])
def test_products_at_the_ends_of_the_ranges(board: targets.Target, bits: int) -> None:
    """All weights at one end against all activations at one end: nothing saturates or wraps around on the way."""
    kernel, limit = kernel_of(board.kernels(), bits), 2 ** (bits - 1) - 1
    length = 1500
    weight = np.array([[w] * length for w in (limit, -limit, 0)] * 11, np.int8)
    bias = np.array([INT32.max // 2, INT32.min // 2, 0] * 11, np.int32)
    x = np.repeat(np.array([[-128], [127]], np.int8), length, axis=1)
    expected = x.astype(np.int32) @ weight.T.astype(np.int32) + bias
    for result in multiply(board, kernel, x, weight, bias):
        assert np.array_equal(result, expected)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_has_a_kernel_that_is_exact_at_its_ends(board: targets.Target, encoding: str) -> None:
    products_of_every_encoding(board, encoding)


@pytest.mark.parametrize("end", [127, 128, 254])
def test_codebooks_of_any_integers(board: targets.Target, end: int) -> None:
    """One table up to +-127, the sum of two beyond: all weights at an end, and entries between drawn at random."""
    rng, length = np.random.default_rng(end), 300
    values = np.unique([-end, end, 0, *rng.integers(-end, end, 13)])
    weight = rng.choice(values, (130, length))
    weight[:2] = [[-end], [end]]
    tensor = encoded(weight, "codebook")
    kernels = board.kernels()
    kernel = kernels.linear(tensor)
    assert kernel is kernels.encodings["codebook"]
    assert kernel.pack(kernel.as_read(tensor.data), np.zeros(130, np.int32))["table"].shape == (1 + (end > 127), 16)
    bias = rng.integers(-(1 << 29), 1 << 29, 130).astype(np.int32)
    x = with_ends(rng, (-128, 127), length)
    expected = x.astype(np.int32) @ weight.T.astype(np.int32) + bias
    for result in multiply(board, kernel, x, tensor.data, bias):
        assert np.array_equal(result, expected)


@pytest.mark.parametrize("encoding", ["ternary", "int2", "binary"])
def test_sums_that_are_looked_up_fill_their_bytes(encoding: str) -> None:
    """All weights and activations at an end: one group more in the bytes and they leave them, which is noticed."""
    board = ARM["arm_neon"]
    need_bare(board)
    kernel = board.kernels().encodings[encoding]
    low = ENCODINGS[encoding][0]
    weight, bias = np.full((33, 40 * kernel.group), low, np.int8), np.zeros(33, np.int32)
    x = np.full((1, weight.shape[1]), -128, np.int8)
    expected = x.astype(np.int32) @ weight.T.astype(np.int32)
    planted = copy.copy(kernel)
    planted.chunk = kernel.chunk + 1 if encoding != "ternary" else kernel.chunk + 3
    assert all(np.array_equal(result, expected) for result in multiply(board, kernel, x, weight, bias))
    assert not any(np.array_equal(result, expected) for result in multiply(board, planted, x, weight, bias))


@pytest.mark.parametrize("encoding", sorted({*ENCODINGS} - {"int8"}))
def test_both_bytes_of_an_operand_of_16_bits(board: targets.Target, encoding: str) -> None:
    products_of_both_bytes(board, encoding)


def test_products_with_a_hadamard_matrix_by_additions(board: targets.Target) -> None:
    walsh_products(board, "int16", 64)


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_operands_of_16_bits(board: targets.Target, dtype: type) -> None:
    wide_products(board, dtype)


@pytest.mark.parametrize("bits", [8, 4])
def test_the_last_group_of_columns_is_filled_with_zeros(board: targets.Target, bits: int) -> None:
    rng = np.random.default_rng(bits)
    x, weight = rng.integers(-128, 128, 21).astype(np.int8), rng.integers(-7, 8, (9, 21)).astype(np.int8)
    result = multiply_joined(board, kernel_of(board.kernels(), bits), x, weight)
    assert np.array_equal(result, x.astype(np.int32) @ weight.T.astype(np.int32))


@pytest.mark.parametrize("entries", [1, 2, 11, 16, 17, 40])
def test_tables_equal_numpy(board: targets.Target, entries: int) -> None:
    """count_le on every int16, and take of what it counts; the last knot is the largest input."""
    rng = np.random.default_rng(entries)
    inner = np.sort(rng.choice(np.arange(-32767, 32767), max(entries - 2, 0), replace=False))
    knots = np.concatenate([[-32768], inner, [32767]])[:entries]
    index = (NUMPY.count_le(knots, INT16_INPUTS) - 1).astype(np.int32)
    tables = rng.integers(INT32.min, INT32.max, entries), rng.integers(-32768, 32768, entries)
    taken = [Case(lambda ops, row, table=table: ops.take(table, row), "int32", (index,)) for table in tables]
    counted = Case(lambda ops, row: ops.count_le(knots, row), "int32", (INT16_INPUTS,))
    counts, *found = all_elementwise(board, [counted, *taken])
    assert np.array_equal(counts, index + 1)
    for values, table in zip(found, tables, strict=True):
        assert np.array_equal(values, table[index])


def test_count_le_on_bytes(board: targets.Target) -> None:
    x = np.arange(-128, 128).astype(np.int8)
    for knots in (np.array([3]), np.array([-128, -128 + 1, 126, 127])):
        counts = elementwise(board, lambda ops, row, knots=knots: ops.count_le(knots, row), "int32", x)
        assert np.array_equal(counts, NUMPY.count_le(knots, x))


def test_requantize_equals_numpy(board: targets.Target) -> None:
    requantizations(board)


@pytest.mark.parametrize("kind", PWL)
def test_pwl_equals_numpy_on_every_input(board: targets.Target, kind: str) -> None:
    piecewise_linear(board, kind, 16)


@pytest.mark.parametrize("norm", ["mad_norm", "layer_norm"])
def test_norms_equal_numpy(board: targets.Target, norm: str) -> None:
    rng, length = np.random.default_rng(3), 65
    gamma = rng.integers(-32767, 32767, length, endpoint=True).astype(np.int16)
    beta = rng.integers(-(1 << 30), 1 << 30, length).astype(np.int32)
    m, s = multiplier_and_shift(2.0**-12)
    x = rng.integers(-32768, 32768, length).astype(np.int16)

    def apply(ops, x, gamma, beta):
        multiplier, shift = (number(int(v[0]), "int32") if isinstance(ops, RowOps) else v for v in (m, s))
        function = getattr(fixed_point, norm)
        return function(ops, x, length, gamma, beta, multiplier, shift, -32768, 32767, "int16")

    assert np.array_equal(elementwise(board, apply, "int16", x, gamma, beta), apply(NUMPY, x, gamma, beta))


# Of each set one program and a plain one; the others later.
PROGRAMS = ("plain", "extremes", "2 bits, both directions", "LayerNorm, 4 bits")
AT_ONCE = {
    "arm_dotprod": "extremes", "arm_i8mm": "extremes", "arm_neon": "2 bits, both directions",
    "armv7_neon": "LayerNorm, 4 bits",
}  # fmt: skip


@pytest.mark.parametrize(
    ("board", "spec"),
    [
        pytest.param(board, spec, marks=() if spec in ("plain", AT_ONCE[board]) else pytest.mark.slow)
        for board in ARM
        for spec in PROGRAMS
    ],
    indirect=["board"],
)
def test_programs_equal_the_interpreter(board: targets.Target, spec: str, tmp_path) -> None:
    program = random_program(SPECS[spec])
    function, constants = bare.program_function(program, board, tmp_path)
    for batch, steps in ((1, 1), (2, 13)):
        inputs, state = random_inputs(program, batch, steps), random_state(program, batch)
        arguments = bare.arguments(program, constants, {name: inputs for name in program.inputs}, state)
        outputs, after = bare.results(program, function(*arguments))
        expected, expected_state = program.run(inputs, state)
        for result, wanted in zip((*outputs, *after.values()), (expected, *expected_state.values()), strict=True):
            assert result.dtype == wanted.dtype
            assert np.array_equal(result, wanted)


def test_an_instruction_that_a_cpu_lacks_is_noticed(tmp_path) -> None:
    """The emulated A53 has no dot products: so the other tests show that its kernels use none."""
    target = ARM["arm_dotprod"]
    program = random_program(Spec())
    inputs, state = random_inputs(program, 1, 1), random_state(program, 1)
    need_bare(target)
    function, constants = bare.program_function(program, target, tmp_path)
    function.emulator = emulated.command("cortex-a53")
    with pytest.raises(IrnnError, match="emulated program failed"):
        function(*bare.arguments(program, constants, {name: inputs for name in program.inputs}, state))


def test_compiled_code_computes_with_integers_alone(board: targets.Target, tmp_path) -> None:
    function, _ = bare.program_function(
        random_program(Spec(hidden=33, norm="layer", wide_tables=True)), board, tmp_path
    )
    listing = disassemble(function.library)
    assert float_instructions(listing) == []
    assert f"\t{MARKS[board.kernels().name]}" in listing
    assert ("sdot" in listing) == (board.kernels().name in ("arm_dotprod", "arm_i8mm"))


@pytest.mark.parametrize("board", ["arm_neon", "armv7_neon"], indirect=True)
def test_float_code_is_told_from_integer_code(board: targets.Target, tmp_path) -> None:
    function, _ = bare.program_function(random_program(Spec(hidden=33, kind="float")), board, tmp_path)
    assert any("mul" in name or "mla" in name for name in float_instructions(disassemble(function.library)))


INTEGER_NAMES = "sdot smull2 fmov fcsel mov dup vmov.f32 vldr vpadal.s16 vadd.i32 bfi bfxil bfm sqxtn vmov.i32 b.vs bl"
FLOAT_NAMES = "fadd fmla fcvtzs scvtf ucvtf fcmpe fccmp frintm fsqrt vadd.f32 vcvt.s32.f32 vcmpe.f32 vfma.f32 bfdot"


def test_float_instructions_are_recognized() -> None:
    for name in INTEGER_NAMES.split():
        assert float_instructions(f"\t{name}\tv0.4s, v1.4s") == []
    for name in FLOAT_NAMES.split():
        assert float_instructions(f"  12ab: \t{name}\tv0.4s, v1.4s") == [name]
