"""Kernels against the compositions that they replace, and the staged arithmetic against NumPy: the same integers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("tvm", reason="need tvm: tvm not installed")


from deploy_tvm import targets
from deploy_tvm.codegen.emit import lower
from deploy_tvm.codegen.kernels import Kernels, LinearKernel
from deploy_tvm.codegen.kernels.portable import PortableKernel
from deploy_tvm.codegen.kernels.walsh import WalshKernel, is_walsh, sylvester
from deploy_tvm.codegen.row_ops import RowOps, Table
from deploy_tvm.codegen.rows import number
from irnn.arithmetic import fixed_point
from irnn.arithmetic.numpy_ops import NUMPY
from irnn.program import Tensor
from tests.support.compiled import Case, all_elementwise, elementwise, multiply, multiply_joined, requantized
from tests.support.cpus import CPUS, runnable
from tests.support.random_programs import Spec, multiplier_and_shift, random_program

INT32 = np.iinfo(np.int32)


def kernel_of(kernels: Kernels, bits: int) -> LinearKernel:
    return kernels.linear(Tensor(np.zeros((1, 1), np.int8), bits))


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize(("rows", "length"), [(1, 1), (5, 3), (64, 64), (130, 33), (33, 650)])
def test_products_equal_numpy(cpu: targets.Target, bits: int, rows: int, length: int) -> None:
    kernel, limit = kernel_of(cpu.kernels(), bits), 2 ** (bits - 1) - 1
    rng = np.random.default_rng(rows * length)
    x = rng.integers(-128, 128, (kernel.tile_vectors, length)).astype(np.int8)
    weight = rng.integers(-limit, limit + 1, (rows, length)).astype(np.int8)
    bias = rng.integers(-(1 << 30), 1 << 30, rows).astype(np.int32)
    expected = x.astype(np.int32) @ weight.T.astype(np.int32) + bias
    for result in multiply(cpu, kernel, x, weight, bias):
        assert np.array_equal(result, expected)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_products_at_the_ends_of_the_ranges(cpu: targets.Target, bits: int) -> None:
    """All weights at one end against all activations at one end: nothing saturates on the way."""
    kernel, limit = kernel_of(cpu.kernels(), bits), 2 ** (bits - 1) - 1
    length = 1500
    weight = np.array([[w] * length for w in (limit, -limit, 0)] * 11, np.int8)
    bias = np.array([INT32.max // 2, INT32.min // 2, 0] * 11, np.int32)
    x = np.repeat(np.array([[-128], [127], [0], [-1]], np.int8), length, axis=1)
    expected = x.astype(np.int32) @ weight.T.astype(np.int32) + bias
    for result in multiply(cpu, kernel, x, weight, bias):
        assert np.array_equal(result, expected)


# Weights from the least to the largest that their encoding holds; version 1 keeps to +-(2**(b-1) - 1).
ENCODINGS = {"int8": (-128, 127), "int4": (-8, 7), "int3": (-4, 3), "int2": (-2, 1), "ternary": (-1, 1),
             "binary": (-1, 1), "codebook": (-128, 128)}  # fmt: skip


def encoded(weight: np.ndarray, encoding: str) -> Tensor:
    """A tensor of that encoding; a codebook is int16 in memory."""
    return Tensor(weight.astype(np.int16 if encoding == "codebook" else np.int8), 8, encoding)


def with_ends(
    rng: np.random.Generator, ends: tuple[int, int], length: int, *others: int, dtype: type = np.int8
) -> np.ndarray:
    """Vectors that are one value all along, each end among them, and three of random integers between the ends."""
    same = np.array([*ends, *others]).repeat(length).reshape(-1, length)
    return np.concatenate([same, rng.integers(*ends, (3, length), endpoint=True)]).astype(dtype)


def products_of_every_encoding(target: targets.Target, encoding: str) -> None:
    """All weights at one end of the encoding's range against all activations at one end, and random ones between."""
    (low, high), length, rng = ENCODINGS[encoding], 300, np.random.default_rng(0)
    weight = rng.integers(low, high + 1, (33, length))
    weight[:3] = np.array([[low], [high], [high]])
    if encoding == "binary":
        weight = np.where(weight >= 0, 1, -1)
    tensor = encoded(weight, encoding)
    kernel = target.kernels().linear(tensor)
    bias = rng.integers(-(1 << 30), 1 << 30, 33).astype(np.int32)
    x = with_ends(rng, (-128, 127), length)
    expected = x.astype(np.int32) @ weight.T.astype(np.int32) + bias
    for result in multiply(target, kernel, x, tensor.data, bias):
        assert np.array_equal(result, expected)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_has_a_kernel_that_is_exact_at_its_ends(cpu: targets.Target, encoding: str) -> None:
    products_of_every_encoding(cpu, encoding)


def products_of_both_bytes(target: targets.Target, encoding: str) -> None:
    """int16 operands from end to end, weights at the ends of what their encoding holds."""
    (low, high), length, rng = ENCODINGS[encoding], 300, np.random.default_rng(0)
    weight = rng.integers(low, high + 1, (33, length))
    weight[:3] = np.array([[low], [high], [high]])
    if encoding == "binary":
        weight = np.where(weight >= 0, 1, -1)
    if encoding == "codebook":
        weight = np.linspace(low, high, 16).astype(int)[rng.integers(0, 16, weight.shape)]
    tensor = encoded(weight, encoding)
    kernel = replace(target.kernels(), parts="all").linear(tensor, "int16")
    assert kernel.form == "parts|"
    bias = rng.integers(-(1 << 20), 1 << 20, 33).astype(np.int32)
    x = with_ends(rng, (-32768, 32767), length, 255, 256, 128, 127, -1, -129, dtype=np.int16)
    expected = x.astype(np.int64) @ weight.T.astype(np.int64) + bias
    assert np.abs(expected).max() < 2**31
    for result in multiply(target, kernel, x, tensor.data, bias):
        assert np.array_equal(result, expected)


@pytest.mark.parametrize("encoding", sorted({*ENCODINGS} - {"int8"}))
@pytest.mark.parametrize("kernel_set", sorted({*CPUS} - {"portable"}))
def test_both_bytes_of_an_operand_of_16_bits(kernel_set: str, encoding: str) -> None:
    products_of_both_bytes(runnable(kernel_set), encoding)


def walsh_products(target: targets.Target, dtype: str, size: int) -> None:
    """Against the product with the matrix: ends, the rows of the matrix themselves (the largest sums), anything."""
    rng, info = np.random.default_rng(size), np.iinfo(dtype)
    weight = rng.choice([-1, 1], (size, 1)) * sylvester(size)
    tensor = encoded(weight, "binary")
    kernel = target.kernels().linear(tensor, dtype)
    assert isinstance(kernel, WalshKernel)
    bias = rng.integers(-(1 << 20), 1 << 20, size).astype(np.int32)
    largest = np.where(weight[size // 3] > 0, info.max, info.min)
    for x in (info.min, info.max, 1, largest, largest[::-1], rng.integers(info.min, info.max, size, endpoint=True)):
        x = np.broadcast_to(x, (kernel.tile_vectors, size)).astype(dtype)
        expected = x.astype(np.int64) @ weight.T.astype(np.int64) + bias
        assert np.abs(expected).max() < 2**31
        for result in multiply(target, kernel, x, tensor.data, bias):
            assert np.array_equal(result, expected)


@pytest.mark.parametrize(("dtype", "size"), [("int16", 16), ("int16", 128), ("int8", 64), ("int16", 256)])
def test_products_with_a_hadamard_matrix_by_additions(cpu: targets.Target, dtype: str, size: int) -> None:
    walsh_products(cpu, dtype, size)


def test_only_a_hadamard_matrix_is_taken_for_one() -> None:
    kernels = CPUS["avx2"].kernels()
    turned = sylvester(32) * np.where(np.arange(32) % 3, 1, -1)[:, None]
    wrong = turned.copy()
    wrong[31, 31] *= -1
    columns = turned * np.where(np.arange(32) % 5, 1, -1)
    assert is_walsh(encoded(turned, "binary"))
    for other in (wrong, columns, turned[:, :16], turned[:31], np.array([[1, 1], [1, -1]])):
        assert not isinstance(kernels.linear(encoded(other, "binary"), "int16"), WalshKernel)
    assert not isinstance(kernels.linear(encoded(turned, "int8")), WalshKernel)


def wide_products(target: targets.Target, dtype: type) -> None:
    """int16 operands and weights at all ends; sums stay within int32, as ``check`` proves of a program."""
    info, length = np.iinfo(dtype), 57
    kernel = target.kernels().linear(Tensor(np.array([[info.min]], dtype), 8 * info.dtype.itemsize), "int16")
    rng = np.random.default_rng(1)
    weight = rng.integers(info.min // length, info.max // length, (33, length)).astype(dtype)
    weight[:4] = 0
    weight[0, 0], weight[1, -1], weight[2, 3] = info.min, info.max, info.min
    bias = rng.integers(-1000, 1000, 33).astype(np.int32)
    x = with_ends(rng, (-32768, 32767), length, dtype=np.int16)
    expected = x.astype(np.int64) @ weight.T.astype(np.int64) + bias
    assert np.abs(expected).max() < 2**31
    for result in multiply(target, kernel, x, weight, bias):
        assert np.array_equal(result, expected)


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_operands_of_16_bits(cpu: targets.Target, dtype: type) -> None:
    wide_products(cpu, dtype)


def test_a_matrix_beyond_its_kernels_proof_takes_another_one() -> None:
    """-128 leaves the 16 bits of NEON's pairs of products; tables of sums have no entry for other weights."""
    dot, neon = (targets.find(name).kernels() for name in ("cortex_a76", "cortex_a53"))
    assert dot.linear(encoded(np.array([[7]]), "int4")) is dot.encodings["int4"]
    assert dot.linear(encoded(np.array([[-8]]), "int4")) is dot.encodings["int4"]
    assert dot.linear(encoded(np.array([[0, 1]]), "binary")) is dot.int8  # no sign: it lies between them
    assert neon.linear(encoded(np.array([[-2, 1]]), "int2")) is neon.encodings["int2"]
    assert neon.linear(encoded(np.array([[-1, 1]]), "int2")) is neon.encodings["ternary"]
    long = np.ones((1, 3 * 2048), np.int8)  # the sums of more groups than 2047 may leave their 16 bits
    assert neon.linear(encoded(long[:, :-3], "ternary")) is neon.encodings["ternary"]
    assert neon.linear(encoded(long, "ternary")) is neon.int8
    assert neon.linear(encoded(np.array([[-127]]), "int8")) is neon.int8
    assert neon.linear(encoded(np.array([[-128]]), "int8")) is neon.int16
    assert dot.linear(encoded(np.array([[-128]]), "int8")) is dot.int8
    for kernels in (dot, neon):
        assert kernels.linear(encoded(np.array([[254]]), "codebook")) is kernels.encodings["codebook"]
        assert kernels.linear(encoded(np.array([[255]]), "codebook")) is kernels.int16
    assert dot.linear(encoded(np.array([range(17)]), "codebook")) is dot.int8
    avx2, vnni = CPUS["avx2"].kernels(), CPUS["avx512vnni"].kernels()
    assert avx2.linear(encoded(np.array([[-128, 0]]), "int8")) is avx2.encodings["int8"]
    assert avx2.linear(encoded(np.array([[-127, -127]]), "int8")) is avx2.int8
    assert avx2.linear(encoded(np.array([[-128, -128]]), "int8")) is avx2.int16
    assert vnni.linear(encoded(np.array([[-128]]), "int8")) is vnni.int8
    assert vnni.linear(encoded(np.array([[0, 1]]), "binary")) is vnni.int8  # no sign: it lies between them
    assert avx2.linear(encoded(np.array([[254]]), "codebook")) is avx2.encodings["codebook"]
    assert avx2.linear(encoded(np.array([[255]]), "codebook")) is avx2.int16
    for kernels in (avx2, vnni, dot, neon):
        assert kernels.linear(encoded(np.array([[-8, 7]]), "codebook")) is kernels.encodings["int4"]
        assert kernels.linear(encoded(np.array([[-2, 1]]), "codebook")) is kernels.encodings["int2"]
        assert kernels.linear(encoded(np.array([[-8, 8]]), "codebook")) is kernels.encodings["codebook"]
    assert avx2.linear(encoded(np.array([range(-16, 16)]), "codebook")) is avx2.encodings["int8"]
    assert vnni.linear(encoded(np.array([range(17)]), "codebook")) is vnni.int8


def test_which_operands_of_16_bits_are_two_bytes() -> None:
    """As it was measured: on AVX2 none, else those of codes that are found at run time."""
    weight = encoded(np.array([[1, -1]]), "int4")
    for name, of_codes in (("avx2", False), ("avx512vnni", True)):
        kernels = CPUS[name].kernels()
        assert kernels.linear(weight, "int16") is kernels.int16
        assert (kernels.linear(weight, "int16", 2).form == "parts|") == of_codes


def test_blocks_that_no_register_fits_are_refused() -> None:
    """Five registers of four rows would be finished eight at a time, and the last four never."""
    kernels = CPUS["portable"].kernels()
    odd = replace(kernels, encodings={}, int8=PortableKernel(4, 5))
    with pytest.raises(ValueError, match="blocks of 20 rows cannot be finished in whole registers of 8 lanes"):
        lower(random_program(Spec(hidden=17)), odd)


@pytest.mark.parametrize("bits", [8, 4])
def test_the_last_group_of_columns_is_filled_with_zeros(cpu: targets.Target, bits: int) -> None:
    """21 = 5 + 16 elements: the last register that is stored ends in the middle of a group."""
    rng = np.random.default_rng(bits)
    x, weight = rng.integers(-128, 128, 21).astype(np.int8), rng.integers(-7, 8, (9, 21)).astype(np.int8)
    result = multiply_joined(cpu, kernel_of(cpu.kernels(), bits), x, weight)
    assert np.array_equal(result, x.astype(np.int32) @ weight.T.astype(np.int32))


@pytest.mark.parametrize("entries", [1, 2, 4, 8, 15, 16, 17, 32, 33, 96, 256])
def test_tables_equal_the_plain_composition(cpu: targets.Target, entries: int) -> None:
    """count_le on every int16, and take of what it counts; the portable target shows that RowOps does the same."""
    rng = np.random.default_rng(entries)
    inner = np.sort(rng.choice(np.arange(-32767, 32768), entries - 1, replace=False))
    knots, table = np.concatenate([[-32768], inner]), rng.integers(INT32.min, INT32.max, entries)
    x = np.arange(-32768, 32768).astype(np.int16)
    index = (NUMPY.count_le(knots, x) - 1).astype(np.int32)
    counts, taken = all_elementwise(
        cpu,
        [
            Case(lambda ops, row: ops.count_le(knots, row), "int32", (x,)),
            Case(lambda ops, row: ops.take(table, row), "int32", (index,)),
        ],
    )
    assert np.array_equal(counts, index + 1)
    assert np.array_equal(taken, table[index])


def test_count_le_where_the_first_knot_is_above_some_inputs(cpu: targets.Target) -> None:
    x = np.arange(-128, 128).astype(np.int8)
    for knots in (np.array([3]), np.array([-5, 0, 100]), np.array([-128, -128 + 1, 126, 127])):
        counts = elementwise(cpu, lambda ops, row, knots=knots: ops.count_le(knots, row), "int32", x)
        assert np.array_equal(counts, NUMPY.count_le(knots, x))


def requantizations(target: targets.Target) -> None:
    """One and two terms, at the ends of the domain and in the ranges that programs have; ties are among them."""
    rng = np.random.default_rng(0)
    ends = np.array([INT32.min, INT32.min + 1, -1, 0, 1, INT32.max - 1, INT32.max], np.int32)
    multipliers = np.array([1 << 30, (1 << 30) + 1, (1 << 31) - 1], np.int32)
    # Ties: x m = (2 k + 1) 2^(s-1) for m = 2^30 and odd x.
    everything = [a.ravel() for a in np.meshgrid(ends, multipliers, np.arange(1, 63).astype(np.int32))]
    anything = (rng.integers(INT32.min, INT32.max, 500, endpoint=True).astype(np.int32), *factors(rng, -18, -8, 500))
    accumulators = (rng.integers(-(1 << 22), 1 << 22, 500).astype(np.int32), *factors(rng, -12, -7, 500))
    one_factor = (accumulators[0], *(np.repeat(a[:1], 500) for a in factors(rng, -12, -11, 1)))
    odd = (np.arange(-250, 250).astype(np.int32), np.full(500, 1 << 30, np.int32), np.full(500, 31, np.int32))
    terms = ([everything], [anything], [accumulators], [one_factor], [odd], [accumulators, one_factor], [odd, anything])
    limits = ((0, -32768, 32767, "int16"), (-7, -128, 127, "int8"), (3, -100, 90, "int8"))
    for given in terms:
        for found, wanted in zip(requantized(target, given, limits), limits, strict=True):
            assert np.array_equal(found, fixed_point.requantize(NUMPY, given, *wanted))


def factors(rng: np.random.Generator, least: float, most: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Multipliers and shifts of real factors between two powers of two."""
    return multiplier_and_shift(2.0 ** rng.uniform(least, most, count))


def test_requantize_equals_numpy(cpu: targets.Target) -> None:
    requantizations(cpu)


# Slopes and shift: what fits 16 bits, what needs more of them, what needs 64 in between.
PWL = {"flat": (400, 14), "as programs have them": (1 << 17, 24), "steep": (1 << 24, 14)}


def piecewise_linear(target: targets.Target, kind: str, pieces: int) -> None:
    """``pwl`` on every int16, by compiled code."""
    steepest, shift = PWL[kind]
    rng = np.random.default_rng(pieces)
    knots = np.concatenate([[-32768], np.sort(rng.choice(np.arange(-32767, 32767), pieces - 1, replace=False))])
    table = Table(knots, rng.integers(-steepest, steepest, pieces), rng.integers(-120 << shift, 120 << shift, pieces))
    x = np.arange(-32768, 32768).astype(np.int16)
    compiled = elementwise(target, lambda ops, row: ops.pwl(row, table, shift, -128, 127, "int8"), "int8", x)
    wanted = fixed_point.pwl(NUMPY, x, table.knots, table.slopes, table.intercepts, shift, -128, 127, "int8")
    assert np.array_equal(compiled, wanted)


@pytest.mark.parametrize("pieces", [1, 2, 16, 33])
@pytest.mark.parametrize("kind", PWL)
def test_pwl_equals_numpy_on_every_input(cpu: targets.Target, kind: str, pieces: int) -> None:
    piecewise_linear(cpu, kind, pieces)


@pytest.mark.parametrize("norm", ["mad_norm", "layer_norm"])
@pytest.mark.parametrize("length", [1, 5, 16, 300])
def test_norms_equal_numpy(cpu: targets.Target, norm: str, length: int) -> None:
    rng = np.random.default_rng(length)
    gamma = rng.integers(-32768, 32767, length, endpoint=True).astype(np.int16)
    beta = rng.integers(-(1 << 30), 1 << 30, length).astype(np.int32)
    m, s = multiplier_and_shift(2.0**-12)
    extremes = np.where(np.arange(length) % 2, -32768, 32767).astype(np.int16)
    for x in (rng.integers(-32768, 32768, length).astype(np.int16), np.full(length, -7, np.int16), extremes):

        def apply(ops, x, gamma, beta):
            multiplier, shift = (number(int(v[0]), "int32") if isinstance(ops, RowOps) else v for v in (m, s))
            function = getattr(fixed_point, norm)
            return function(ops, x, length, gamma, beta, multiplier, shift, -32768, 32767, "int16")

        assert np.array_equal(elementwise(cpu, apply, "int16", x, gamma, beta), apply(NUMPY, x, gamma, beta))


def test_integer_square_root(cpu: targets.Target) -> None:
    for value in (
        0,
        1,
        2,
        3,
        4,
        15,
        16,
        10**12 - 1,
        10**12,
        (1 << 62) - 1,
        ((1 << 31) - 1) ** 2,
        ((1 << 31) - 1) ** 2 - 1,
    ):
        x = np.array([value])
        # The root is of one number: the sum of a row of one.
        root = elementwise(
            cpu, lambda ops, row: ops.isqrt(ops.row_sum(row)) + ops.to(row, "int64") * number(0, "int64"), "int64", x
        )
        assert np.array_equal(root, NUMPY.isqrt(x))
