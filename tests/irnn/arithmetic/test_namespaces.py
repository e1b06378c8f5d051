"""The operations of the namespaces, NumPy's and PyTorch's, against Python's integers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.exact import assert_integers, both, clamp, on
from tests.support.strategies import biased_integers, int16s, int32s, output_ranges, quick, thorough


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
