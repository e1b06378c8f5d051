"""Every function of ``fixed_point`` against unbounded integers and exact fractions, on both namespaces."""

from __future__ import annotations

import bisect
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from irnn.arithmetic import fixed_point as fp
from irnn.arithmetic.numpy_ops import NUMPY
from irnn.arithmetic.torch_ops import TORCH
from tests.support.checked_ops import CheckedOps
from tests.support.strategies import (
    PwlTable,
    biased_integers,
    int8s,
    int16s,
    int32s,
    multipliers,
    norm_rows,
    output_ranges,
    pwl_tables,
    quick,
    rescale_terms,
    thorough,
)

both = pytest.mark.parametrize("ops", [NUMPY, TORCH], ids=["numpy", "torch"])
EXTREME_SHIFTS = (1, 2, 30, 31, 61, 62)
EXTREME_MULTIPLIERS = (1 << 30, (1 << 30) + 1, (1 << 31) - 1)
EXTREME_INT32 = (-(1 << 31), -(1 << 31) + 1, -3, -1, 0, 1, 3, (1 << 31) - 2, (1 << 31) - 1)


def half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def clamp(value: int, low: int, high: int) -> int:
    return low if value < low else high if value > high else value


def on(ops: Any, x: Any) -> Any:
    """``x`` as an array of the namespace."""
    return torch.from_numpy(np.ascontiguousarray(x)) if ops is TORCH else x


def assert_integers(actual: Any, expected: Any, dtype: str) -> None:
    """``actual`` has this dtype and these values (``expected``: nested lists of Python integers)."""
    assert str(actual.dtype).removeprefix("torch.") == dtype
    np.testing.assert_array_equal(np.asarray(actual), np.array(expected, dtype=dtype), strict=True)


def exact_rescale(x: int, multiplier: int, shift: int) -> int:
    return half_up(Fraction(int(x) * int(multiplier), 1 << int(shift)))


# rescale, saturate, requantize


@both
@thorough
@given(terms=rescale_terms())
def test_rescale_is_the_exact_product_rounded_half_up(ops: Any, terms: list) -> None:
    (term,) = terms
    actual = fp.rescale(ops, on(ops, term.x), on(ops, term.multiplier), on(ops, term.shift))
    expected = [exact_rescale(*v) for v in zip(term.x, term.multiplier, term.shift, strict=True)]
    assert_integers(actual, expected, "int64")


@both
@pytest.mark.parametrize("shift", EXTREME_SHIFTS)
@pytest.mark.parametrize("multiplier", EXTREME_MULTIPLIERS)
def test_rescale_at_the_limits_of_its_operands(ops: Any, multiplier: int, shift: int) -> None:
    x = np.array(EXTREME_INT32, dtype="int32")
    m, n = np.array([multiplier], dtype="int32"), np.array([shift], dtype="int32")
    actual = fp.rescale(ops, on(ops, x), on(ops, m), on(ops, n))
    assert_integers(actual, [exact_rescale(v, multiplier, shift) for v in EXTREME_INT32], "int64")


@both
@pytest.mark.parametrize("shift", [31, 32, 40, 61])
def test_rescale_rounds_ties_up(ops: Any, shift: int) -> None:
    """With multiplier 2**30 an odd x at 2**(shift - 31) steps is a tie; towards +infinity, also below zero."""
    tie = 1 << (shift - 31)
    odds = [k for k in (-7, -5, -3, -1, 1, 3, 5, 7) if abs(k * tie) < 1 << 31]
    x = np.array([k * tie for k in odds], dtype="int32")
    actual = fp.rescale(ops, on(ops, x), on(ops, np.int32([1 << 30])), on(ops, np.int32([shift])))
    assert_integers(actual, [(k + 1) // 2 for k in odds], "int64")
    assert fp.rescale(ops, on(ops, np.int32([-1])), on(ops, np.int32([1 << 30])), on(ops, np.int32([31])))[0] == 0


@both
@pytest.mark.parametrize("dtype", ["int8", "int16", "int32"])
def test_rescale_takes_narrow_operands_and_one_factor_a_row(ops: Any, dtype: str) -> None:
    info = np.iinfo(dtype)
    x = np.array([[info.min, -1, 0], [1, info.max, 7]], dtype=dtype)
    m, n = np.array([1 << 30, 2000000001, (1 << 31) - 1], "int32"), np.array([31, 33, 1], "int32")
    expected = [[exact_rescale(*v) for v in zip(row, m, n, strict=True)] for row in x]
    assert_integers(fp.rescale(ops, on(ops, x), on(ops, m), on(ops, n)), expected, "int64")


@both
@quick
@given(x=st.lists(biased_integers(-(1 << 62), 1 << 62), min_size=1, max_size=20), limits=output_ranges)
def test_saturate_clamps_and_narrows(ops: Any, x: list[int], limits: tuple[int, int, str]) -> None:
    low, high, dtype = limits
    around = [v + d for v in (low, high) for d in (-1, 0, 1)]
    actual = fp.saturate(ops, on(ops, np.array(x + around, "int64")), low, high, dtype)
    assert_integers(actual, [clamp(v, low, high) for v in x + around], dtype)


@both
@pytest.mark.parametrize("count", [1, 2, 3])
@thorough
@given(data=st.data(), limits=output_ranges)
def test_requantize_rounds_each_term_once_and_saturates_the_sum_once(
    ops: Any, count: int, data: st.DataObject, limits: tuple[int, int, str]
) -> None:
    low, high, dtype = limits
    terms = data.draw(rescale_terms(count))
    zero_point = data.draw(biased_integers(max(low, -32768), min(high, 65535)))
    actual = fp.requantize(
        ops, [(on(ops, t.x), on(ops, t.multiplier), on(ops, t.shift)) for t in terms], zero_point, low, high, dtype
    )
    expected = [
        clamp(sum(exact_rescale(t.x[k], t.multiplier[k], t.shift[k]) for t in terms) + zero_point, low, high)
        for k in range(len(terms[0].x))
    ]
    assert_integers(actual, expected, dtype)


@both
def test_requantize_of_two_halves_is_two(ops: Any) -> None:
    half = (on(ops, np.int32([1])), on(ops, np.int32([1 << 30])), on(ops, np.int32([31])))
    assert_integers(fp.requantize(ops, [half, half], 0, -128, 127, "int8"), [2], "int8")


@both
@pytest.mark.parametrize(("x", "expected"), [(126, 126), (127, 127), (128, 127), (-128, -128), (-129, -128)])
def test_requantize_saturates_at_the_very_limits(ops: Any, x: int, expected: int) -> None:
    term = (on(ops, np.int32([x])), on(ops, np.int32([1 << 30])), on(ops, np.int32([30])))
    assert_integers(fp.requantize(ops, [term], 0, -128, 127, "int8"), [expected], "int8")
    shifted = fp.requantize(ops, [term], -100, -128, 127, "int8")
    assert_integers(shifted, [clamp(x - 100, -128, 127)], "int8")


# add, multiply


@both
@quick
@given(
    pairs=st.lists(st.tuples(int16s, int16s), min_size=1, max_size=30),
    limits=st.sampled_from([(-32768, 32767), (-32767, 32767), (-512, 511)]),
)
@example(pairs=[(-32768, -32768), (32767, 32767), (-32768, 32767), (32767, 1), (-32768, -1)], limits=(-32768, 32767))
def test_add_saturates(ops: Any, pairs: list[tuple[int, int]], limits: tuple[int, int]) -> None:
    a, b = np.array(pairs, "int16").T
    actual = fp.add(ops, on(ops, a), on(ops, b), *limits, "int16")
    assert_integers(actual, [clamp(x + y, *limits) for x, y in pairs], "int16")


@both
@quick
@given(pairs=st.lists(st.tuples(int8s, int16s), min_size=1, max_size=30), zero_point_a=int8s, zero_point_b=int8s)
@example(pairs=[(127, -32768), (-128, -32768), (127, 32767)], zero_point_a=-128, zero_point_b=0)
@example(pairs=[(-128, 32767), (127, 32767)], zero_point_a=127, zero_point_b=-128)
def test_multiply_takes_the_zero_points_off(
    ops: Any, pairs: list[tuple[int, int]], zero_point_a: int, zero_point_b: int
) -> None:
    a = np.array([a for a, _ in pairs], "int8")
    b = np.array([b for _, b in pairs], "int16")
    actual = fp.multiply(ops, on(ops, a), on(ops, b), zero_point_a, zero_point_b)
    assert_integers(actual, [(x - zero_point_a) * (y - zero_point_b) for x, y in pairs], "int32")


# pwl


def exact_pwl(table: PwlTable, x: int, low: int, high: int) -> int:
    knots = table.knots.tolist()
    piece = bisect.bisect_right(knots, x) - 1
    y = (x - knots[piece]) * int(table.slopes[piece]) + int(table.intercepts[piece])
    return clamp(half_up(Fraction(y, 1 << table.shift)), low, high)


def run_pwl(ops: Any, table: PwlTable, x: np.ndarray, low: int, high: int, dtype: str) -> Any:
    tensors = (on(ops, t) for t in (table.knots, table.slopes, table.intercepts))
    return fp.pwl(ops, on(ops, x), *tensors, table.shift, low, high, dtype)


@both
@quick
@given(table=pwl_tables(8), limits=output_ranges)
def test_pwl_on_every_int8_input(ops: Any, table: PwlTable, limits: tuple[int, int, str]) -> None:
    x = np.arange(-128, 128, dtype="int8")
    actual = run_pwl(ops, table, x, *limits)
    assert_integers(actual, [exact_pwl(table, v, *limits[:2]) for v in range(-128, 128)], limits[2])


@both
@thorough
@given(table=pwl_tables(16), limits=output_ranges, x=st.lists(int16s, max_size=20))
def test_pwl_at_int16_knots_their_neighbours_and_the_ends(
    ops: Any, table: PwlTable, limits: tuple[int, int, str], x: list[int]
) -> None:
    x = [*x, *(int(k) + d for k in table.knots for d in (-1, 0, 1)), -32768, 32767]
    x = [v for v in x if -32768 <= v <= 32767]
    actual = run_pwl(ops, table, np.array(x, "int16"), *limits)
    assert_integers(actual, [exact_pwl(table, v, *limits[:2]) for v in x], limits[2])


@both
def test_pwl_of_one_piece_and_of_a_tie(ops: Any) -> None:
    """Slope one half: odd distances are ties and round up; then a piece that starts at the grid's last point."""
    table = PwlTable(*(np.int32(v) for v in ([-128], [128], [-64 << 8])), 8, -128, 127)
    x = np.int8([-128, -127, -126, -1, 0, 1, 127])
    assert_integers(run_pwl(ops, table, x, -128, 127, "int8"), [-64, -63, -63, 0, 0, 1, 64], "int8")
    table = PwlTable(*(np.int32(v) for v in ([-128, 127], [0, 5], [0, 3 << 8])), 8, -128, 127)
    assert_integers(run_pwl(ops, table, np.int8([-128, 126, 127]), -128, 127, "int8"), [0, 0, 3], "int8")


# norms

NORM_LENGTHS = st.one_of(st.sampled_from([1, 2, 3, 5, 300]), st.integers(1, 64))
LONG_LENGTHS = st.sampled_from([1500, 2047, 2048])
IDENTITY = {"multiplier": np.int32([1 << 30]), "shift": np.int32([30])}


def run_norm(ops: Any, function: str, x: np.ndarray, gamma: Any, beta: Any, multiplier: Any, shift: Any) -> Any:
    n = x.shape[-1]
    tensors = (on(ops, t) for t in (gamma, beta, multiplier, shift))
    return getattr(fp, function)(ops, on(ops, x), n, *tensors, -32768, 32767, "int16")


def normalized(ops: Any, function: str, x: np.ndarray) -> Any:
    """The clamped 10-bit fraction t itself: gamma 1, beta 0, factor 1."""
    n = x.shape[-1]
    return run_norm(ops, function, x, np.ones(n, "int16"), np.zeros(n, "int32"), **IDENTITY)


def exact_t(function: str, row: list[int]) -> list[int]:
    """t of the contract, unclamped: every division a floor of Python integers, every rounding half up."""
    n, total = len(row), sum(row)
    u = [n * v - total for v in row]
    if not any(u):
        return [0] * n
    if function == "mad_norm":
        reciprocal, drop = n * 2**48 // sum(map(abs, u)), 38
    else:
        root = math.isqrt((n * sum(v * v for v in row) - total * total) * 2**10)
        reciprocal, drop = 2**59 // root, 44
    return [half_up(Fraction(v * reciprocal, 2**drop)) for v in u]


def exact_norm(function: str, row: list[int], gamma: Any, beta: Any, multiplier: Any, shift: Any) -> list[int]:
    acc = [clamp(t, -32768, 32767) * int(gamma[k]) + int(beta[k]) for k, t in enumerate(exact_t(function, row))]
    return [clamp(exact_rescale(a, multiplier[0], shift[0]), -32768, 32767) for a in acc]


@both
@pytest.mark.parametrize("function", ["mad_norm", "layer_norm"])
@quick
@given(data=st.data())
def test_norms_follow_the_contract(ops: Any, function: str, data: st.DataObject) -> None:
    x = data.draw(norm_rows(NORM_LENGTHS))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    gamma = rng.integers(-32767, 32767, x.shape[-1], endpoint=True).astype("int16")
    gamma[0] = data.draw(biased_integers(-32767, 32767))
    beta = rng.integers(-(1 << 30), 1 << 30, x.shape[-1], endpoint=True).astype("int32")
    beta[0] = data.draw(biased_integers(-(1 << 30), 1 << 30))
    affine = {
        "gamma": gamma,
        "beta": beta,
        "multiplier": np.int32([data.draw(multipliers)]),
        "shift": np.int32([data.draw(st.integers(30, 62))]),
    }
    expected = [exact_norm(function, row, **affine) for row in x.tolist()]
    assert_integers(run_norm(ops, function, x, **affine), expected, "int16")


@both
@pytest.mark.parametrize("function", ["mad_norm", "layer_norm"])
@pytest.mark.parametrize("length", [1, 2, 7, 1500, 2048])
def test_norms_of_equal_elements_are_beta(ops: Any, function: str, length: int) -> None:
    x = np.repeat(np.array([[-32768], [-1], [0], [32767]], "int16"), length, axis=1)
    with np.errstate(all="raise"):
        assert_integers(normalized(ops, function, x), np.zeros(x.shape, int).tolist(), "int16")
    beta = np.full(length, -1234, "int32")
    gamma = np.full(length, 32767, "int16")
    actual = run_norm(ops, function, x, gamma, beta, **IDENTITY)
    assert_integers(actual, np.full(x.shape, -1234).tolist(), "int16")


def spike(length: int, at: int, base: int = 0) -> list[int]:
    return [at, *[base] * (length - 1)]


def hard_rows(length: int) -> list[list[int]]:
    half = length // 2
    return [
        spike(length, 1),
        spike(length, -1),
        spike(length, 32767, -32768),
        spike(length, -32768, 32767),
        [-32768] * half + [32767] * (length - half),
        [32767] * half + [-32768] * (length - half),
        [k - half for k in range(length)],
    ]


@both
@pytest.mark.parametrize("function", ["mad_norm", "layer_norm"])
@pytest.mark.parametrize("length", [2, 3, 64, 65, 1500, 2047, 2048])
def test_norms_of_spikes_and_two_valued_rows(ops: Any, function: str, length: int) -> None:
    """The largest |u|, d and S there are, and normalized values far beyond int16 (a spike has t = 2**9 N)."""
    rows = hard_rows(length)
    expected = [[clamp(t, -32768, 32767) for t in exact_t(function, row)] for row in rows]
    assert_integers(normalized(ops, function, np.array(rows, "int16")), expected, "int16")
    if function == "mad_norm" and length > 64:
        assert expected[0][0] == 32767


def mad_error(row: list[int], t: list[int]) -> Fraction:
    """Largest error of t in its own steps against exact fractions, saturated elements apart."""
    n, total = len(row), sum(row)
    deviation = sum(abs(n * v - total) for v in row)
    if not deviation:
        return Fraction(max(map(abs, t)))
    exact = (Fraction((n * v - total) * n * 1024, deviation) for v in row)
    return max((abs(e - a) for e, a in zip(exact, t, strict=True) if -32768 <= e <= 32767), default=Fraction(0))


@both
@quick
@given(x=norm_rows(st.one_of(NORM_LENGTHS, LONG_LENGTHS)))
def test_mad_norm_error_is_half_a_step(ops: Any, x: np.ndarray) -> None:
    """Half a step from the one rounding; the floored reciprocal adds |u| / 2**38 < 2**-11 of a step, and no more."""
    for row, t in zip(x.tolist(), normalized(ops, "mad_norm", x).tolist(), strict=True):
        assert mad_error(row, t) <= Fraction(1, 2) + Fraction(1, 2**11)


@both
@quick
@given(x=norm_rows(st.one_of(NORM_LENGTHS, LONG_LENGTHS)))
def test_layer_norm_error_bound(ops: Any, x: np.ndarray) -> None:
    """The floored root makes |t| too large by a factor below 1 + 1 / root; beside it there is half a step, rounded."""
    for row, t_row in zip(x.tolist(), normalized(ops, "layer_norm", x).tolist(), strict=True):
        n, total = len(row), sum(row)
        spread = n * sum(v * v for v in row) - total * total
        if not spread:
            assert set(t_row) == {0}
            continue
        root = math.isqrt(spread << 10)
        slack = Fraction(1, 2) + Fraction(1, 2**16)
        # Exact bounds on 2**10 / sqrt(spread), by an integer root with 80 more bits.
        fine = math.isqrt(spread << 200)
        low, high = Fraction(1 << 110, fine + 1), Fraction(1 << 110, fine)
        for v, t in zip(row, t_row, strict=True):
            u = abs(n * v - total)
            if u * high * (1 + Fraction(1, root)) > 32767:
                continue
            magnitude = t if n * v > total else -t
            assert u * low - slack <= magnitude <= u * high * (1 + Fraction(1, root)) + slack


# bounds claimed in the docstrings, proved by running the text itself with overflow checks


def test_rescale_intermediates_fit_int64() -> None:
    ops = CheckedOps()
    x = ops.to(np.array(EXTREME_INT32), "int32")
    for multiplier in EXTREME_MULTIPLIERS:
        for shift in range(fp.SHIFT_MIN, fp.SHIFT_MAX + 1):
            fp.rescale(ops, x, ops.to([multiplier], "int32"), ops.to([shift], "int32"))
    assert ops.largest["*"] < 2**62
    assert ops.largest["<<"] <= 2**61


def test_requantize_of_three_largest_terms_fits_int64() -> None:
    for x in (fp.INT32_MIN, fp.INT32_MAX):
        ops = CheckedOps()
        term = (ops.to([x], "int32"), ops.to([fp.MULTIPLIER_MAX], "int32"), ops.to([1], "int32"))
        fp.requantize(ops, [term] * 3, 127, -128, 127, "int8")


def test_multiply_and_add_intermediates() -> None:
    ops = CheckedOps()
    a, b = ops.to([-128, 127, 127, -128], "int8"), ops.to([-32768, -32768, 32767, 32767], "int16")
    fp.multiply(ops, a, b, -128, 0)
    assert ops.largest["*"] <= 255 * 32768 < 2**23
    fp.multiply(ops, b, b, 0, 0)
    fp.add(ops, b, b, -32768, 32767, "int16")


@pytest.mark.parametrize("slope", [-(1 << 31), (1 << 31) - 1])
@pytest.mark.parametrize("intercept", [-(1 << 31), (1 << 31) - 1])
@pytest.mark.parametrize("shift", [8, 24])
def test_pwl_intermediates(slope: int, intercept: int, shift: int) -> None:
    ops = CheckedOps()
    table = (np.array([v], "int32") for v in (-32768, slope, intercept))
    fp.pwl(ops, ops.to([-32768, 0, 32767], "int16"), *table, shift, -128, 127, "int8")
    assert ops.largest["*"] < 2**48


@pytest.mark.parametrize("length", [1, 2, 3, 1500, 2047, 2048])
@pytest.mark.parametrize("function", ["mad_norm", "layer_norm"])
def test_norm_intermediates(function: str, length: int) -> None:
    """At the longest rows and largest spreads; gamma in +-32767 with |beta| = 2**30 just stays in int32."""
    for sign in (1, -1):
        ops = CheckedOps()
        for row in hard_rows(length):
            gamma, beta = ops.to([sign * 32767] * length, "int16"), ops.to([sign << 30] * length, "int32")
            factor = ops.to([fp.MULTIPLIER_MAX], "int32"), ops.to([62], "int32")
            x = ops.to([clamp(v, -32768, 32767) for v in row], "int16")
            getattr(fp, function)(ops, x, length, gamma, beta, *factor, -32768, 32767, "int16")
        # The products u R and those of the last rescale.
        assert ops.largest["*"] < 2**62


@pytest.mark.parametrize("length", [2, 3, 1500, 2048])
def test_reciprocal_products_stay_below_2_to_the_60(length: int) -> None:
    """|u R| <= N << 48 in MadNorm; |u R| <= sqrt(N) 2**54 (1 + 1 / root) in LayerNorm."""
    for row in hard_rows(length):
        n, total = length, sum(row)
        u = max(abs(n * v - total) for v in row)
        mean_deviation = sum(abs(n * v - total) for v in row)
        assert u * ((n << fp.RECIPROCAL_BITS) // mean_deviation) <= n << fp.RECIPROCAL_BITS <= 2**59
        spread = n * sum(v * v for v in row) - total**2
        assert spread << 2 * fp.ROOT_FRACTION_BITS <= 2**62
        assert u * ((1 << fp.ROOT_RECIPROCAL_BITS) // math.isqrt(spread << 10)) <= 45.3 * 2**54 < 2**60


def test_checked_namespace_refuses_what_it_should() -> None:
    """The proofs above are worth what their checker is: it must see an overflow and a promotion."""
    ops = CheckedOps()
    with pytest.raises(OverflowError):
        ops.to([1 << 62], "int64") * ops.to([2], "int64")
    with pytest.raises(OverflowError):
        ops.to([128], "int8")
    with pytest.raises(TypeError):
        ops.to([1], "int32") + ops.to([1], "int64")
    x, gamma, beta = ops.to(spike(2048, -1), "int16"), ops.to([-32768] * 2048, "int16"), ops.to([1 << 30], "int32")
    with pytest.raises(OverflowError):
        fp.mad_norm(ops, x, 2048, gamma, beta, ops.to([1 << 30], "int32"), ops.to([30], "int32"), 0, 1, "int16")


# the namespaces


@both
@thorough
@given(root=st.one_of(st.integers(1, 1 << 31), st.sampled_from([1, 2, 3, 94906265, 94906266, 2**26, 2**31 - 1, 2**31])))
def test_isqrt_around_perfect_squares(ops: Any, root: int) -> None:
    x = [v for v in (root * root - 1, root * root, root * root + 1, 0, (1 << 62) - 1, 1 << 62) if v <= 1 << 62]
    assert_integers(ops.isqrt(on(ops, np.array(x, "int64"))), [math.isqrt(v) for v in x], "int64")


@both
@thorough
@given(x=st.lists(biased_integers(0, 1 << 62), min_size=1, max_size=30))
def test_isqrt_is_the_floored_root(ops: Any, x: list[int]) -> None:
    assert_integers(ops.isqrt(on(ops, np.array(x, "int64"))), [math.isqrt(v) for v in x], "int64")


@both
@quick
@given(
    pairs=st.lists(st.tuples(biased_integers(0, 1 << 62), biased_integers(1, 1 << 62)), min_size=1, max_size=30),
)
def test_floor_div_is_exact(ops: Any, pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, "int64").T
    assert_integers(ops.floor_div(on(ops, a), on(ops, b)), [x // y for x, y in pairs], "int64")


@both
@quick
@given(
    table=st.lists(int16s, min_size=1, max_size=16, unique=True), x=st.lists(int16s, max_size=20), dtype=output_ranges
)
def test_count_le_and_take(ops: Any, table: list[int], x: list[int], dtype: Any) -> None:
    table = sorted(table)
    x = [*x, *table]
    count = ops.count_le(on(ops, np.array(table, "int32")), on(ops, np.array(x, "int16")))
    assert_integers(count, [sum(k <= v for k in table) for v in x], "int32")
    taken = ops.take(on(ops, np.array([*table, 0], "int32")), count)
    assert_integers(taken, [[*table, 0][sum(k <= v for k in table)] for v in x], "int32")


@both
@quick
@given(rows=st.lists(st.tuples(int32s, int32s, int32s), min_size=1, max_size=8))
def test_row_sum_abs_clip_where(ops: Any, rows: list[tuple[int, int, int]]) -> None:
    x = on(ops, np.array(rows, "int64"))
    assert_integers(ops.row_sum(x), [[sum(row)] for row in rows], "int64")
    assert_integers(ops.abs(x), [[abs(v) for v in row] for row in rows], "int64")
    assert_integers(ops.clip(x, -5, 9), [[clamp(v, -5, 9) for v in row] for row in rows], "int64")
    assert_integers(ops.where(x < 0, x, -x), [[-abs(v) for v in row] for row in rows], "int64")


@both
@pytest.mark.parametrize("columns", [1, 7, 1032, 1033, 2048, 4100])
def test_matmul_is_exact_with_the_largest_weights(ops: Any, columns: int) -> None:
    """Weights +-127 against x = -128 and 127; 1032 columns are the last whose sums are proved exact in float32."""
    rng = np.random.default_rng(columns)
    weight = np.stack(
        [np.full(columns, 127), np.full(columns, -127), np.zeros(columns, int), rng.choice([-127, 127], columns)]
    ).astype("int8")
    x = np.stack([np.full(columns, -128), np.full(columns, 127), rng.integers(-128, 128, columns)]).astype("int8")
    expected = [[sum(a * b for a, b in zip(row, w, strict=True)) for w in weight.tolist()] for row in x.tolist()]
    actual = ops.matmul(on(ops, x), ops.weight(weight, 128))
    assert_integers(actual, expected, "int32")
