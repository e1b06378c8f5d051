"""Rescaling, sums, products and tables of ``fixed_point`` against unbounded integers, on both namespaces."""

from __future__ import annotations

import bisect
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from irnn.arithmetic import fixed_point as fp
from tests.support.exact import (
    EXTREME_INT32,
    EXTREME_MULTIPLIERS,
    EXTREME_SHIFTS,
    assert_integers,
    both,
    clamp,
    exact_rescale,
    half_up,
    on,
)
from tests.support.strategies import (
    PwlTable,
    biased_integers,
    int8s,
    int16s,
    output_ranges,
    pwl_tables,
    quick,
    rescale_terms,
    thorough,
)

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
