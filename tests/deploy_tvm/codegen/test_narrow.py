"""The forms in 32 bits against unbounded integers; refused where they would overflow."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

from hypothesis import given
from hypothesis import strategies as st

from deploy_tvm.codegen import narrow
from irnn.arithmetic import fixed_point
from irnn.arithmetic.numpy_ops import NUMPY

INT32_MAX = (1 << 31) - 1


def wrapped(value: int) -> int:
    """What is left of a number in int32."""
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


@given(
    x=st.integers(-INT32_MAX - 1, INT32_MAX),
    factors=st.lists(st.tuples(st.integers(1 << 30, INT32_MAX), st.integers(1, 62)), min_size=1, max_size=4),
)
def test_rescale_equals_unbounded_integers(x: int, factors: list[tuple[int, int]]) -> None:
    multiplier, shift = (np.array(column, np.int32) for column in zip(*factors, strict=True))
    form = narrow.rescale(multiplier, shift, min(x, 0), max(x, 0))
    if form is None:
        shifts = [s for _, s in factors]
        assert abs(x) << max(32, *shifts) - min(shifts) > INT32_MAX
        return
    for (m, s), before in zip(factors, form.before.tolist(), strict=True):
        assert wrapped(x << before) == x << before
        product = (x << before) * m + (1 << (31 + form.after))
        assert -(1 << 63) <= product < 1 << 63
        wanted = (x * m + (1 << (s - 1))) >> s
        assert (product >> 32) >> form.after == wanted
        assert form.low <= wanted <= form.high


@given(
    x=st.integers(-INT32_MAX - 1, INT32_MAX),
    factors=st.lists(st.tuples(st.integers(1 << 30, INT32_MAX), st.integers(1, 62)), min_size=1, max_size=4),
)
def test_doubled_equals_unbounded_integers(x: int, factors: list[tuple[int, int]]) -> None:
    multiplier, shift = (np.array(column, np.int32) for column in zip(*factors, strict=True))
    form = narrow.doubled(multiplier, shift, min(x, 0), max(x, 0))
    if form is None:
        assert abs(x) << 32 - min(s for _, s in factors) > INT32_MAX
        return
    for (m, s), before, after in zip(factors, form.before.tolist(), form.after.tolist(), strict=True):
        assert wrapped(x << before) == x << before
        upper = 2 * (x << before) * m >> 32
        assert wrapped(upper) == upper
        assert 1 <= after <= 31
        wanted = (x * m + (1 << (s - 1))) >> s
        assert (upper + (1 << (after - 1))) >> after == wanted
        assert form.low <= wanted <= form.high


def test_terms_are_added_where_no_order_of_them_leaves_int32() -> None:
    """Two that cancel fit as a sum, and do not fit on the way to it."""
    up, down = (narrow.Rescale(np.zeros(1, np.int32), 0, *ends) for ends in ((0, 1 << 30), (-(1 << 30), 0)))
    assert narrow.added([up, down], 0) is None
    assert narrow.added([up], (1 << 30) - 1) == ([up], (1 << 30) - 1, INT32_MAX)
    assert narrow.added([up], 1 << 30) is None
    assert narrow.added([up, None], 0) is None


def evaluated(found: narrow.Lines, knots: np.ndarray, x: np.ndarray, low: int, high: int) -> list[int]:
    """What the lines give, in unbounded integers; whatever int32 does not hold is an error."""
    result = []
    for value, piece in zip(x.tolist(), (np.searchsorted(knots, x, side="right") - 1).tolist(), strict=True):
        distance = value - (0 if found.centres is None else int(found.centres[piece]))
        steps = [distance, distance * int(found.slopes[piece])]
        steps.append(steps[1] + int(found.offsets[piece]))
        assert all(wrapped(step) == step for step in steps)
        y = steps[2] >> found.shift
        result.append(min(max(y, low), high) if found.clamps else y)
    return result


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("seed", range(6))
def test_lines_equal_the_function_on_every_input(dtype: str, seed: int) -> None:
    rng, info = np.random.default_rng(seed), np.iinfo(dtype)
    shift, pieces = int(rng.integers(8, 25)), int(rng.integers(1, 20))
    inner = np.sort(rng.choice(np.arange(info.min + 1, info.max + 1), pieces - 1, replace=False))
    knots = np.concatenate([[info.min], inner])
    steepest = max(1, (200 << shift) // (info.max - info.min))
    slopes = rng.integers(-steepest, steepest + 1, pieces)
    intercepts = rng.integers(-(100 << shift), 100 << shift, pieces)
    found = narrow.lines(knots, slopes, intercepts, shift, -100, 120, dtype)
    assert found is not None
    x = np.arange(info.min, info.max + 1)
    wanted = fixed_point.pwl(NUMPY, x, knots, slopes, intercepts, shift, -100, 120, "int64")
    assert evaluated(found, knots, x, -100, 120) == wanted.tolist()
    if found.centres is None:
        assert np.abs(found.slopes).max() < 1 << 15


def test_what_does_not_fit_is_refused() -> None:
    knots, none = np.array([-32768]), np.array([0])
    assert narrow.lines(knots, np.array([1 << 40]), none, 8, -128, 127, "int16") is None
    assert narrow.rescale(np.array([1 << 30]), np.array([31]), -(1 << 31), 0) is None
    assert narrow.rescale(np.array([1 << 30]), np.array([32]), -INT32_MAX, 0) is not None
    assert narrow.rescale(np.array([1 << 30] * 2), np.array([32, 40]), -(1 << 23), 0) is None


@pytest.mark.parametrize("planted", ["offset", "slope"])
def test_a_wrong_line_is_noticed(planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check on every input is what proves a form: one step off in one piece must not pass it."""
    honest = narrow._line

    def wrong(x, wanted, slope, *rest):
        line = honest(x, wanted, slope, *rest)
        if line is None or slope != 300:
            return line
        return (line[0], line[1] + (1 << 14)) if planted == "offset" else (line[0] + 1, line[1])

    monkeypatch.setattr(narrow, "_line", wrong)
    with pytest.raises(AssertionError, match="differ"):
        narrow.lines(np.array([-32768, 0]), np.array([300, 20]), np.array([0, 7]), 14, -128, 127, "int16")
