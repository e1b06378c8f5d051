"""Hypothesis strategies shared by the tests: operands of the fixed-point functions, biased towards their limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from irnn.arithmetic.fixed_point import INT32_MAX, INT32_MIN, MULTIPLIER_MAX, MULTIPLIER_MIN, SHIFT_MAX, SHIFT_MIN

# Integer comparisons are exact, so an example that is slow on a busy machine says nothing.
quick = settings(max_examples=50, deadline=None)
thorough = settings(max_examples=100, deadline=None)


def biased_integers(low: int, high: int) -> st.SearchStrategy[int]:
    """Integers of [low, high], its ends, the neighbourhood of zero and the powers of two often among them."""
    powers = {sign * (1 << k) + d for k in range(64) for sign in (1, -1) for d in (-1, 0, 1)}
    special = sorted({low, low + 1, high - 1, high, -1, 0, 1, *powers})
    special = [v for v in special if low <= v <= high]
    return st.one_of(st.sampled_from(special), st.integers(low, high))


int32s = biased_integers(INT32_MIN, INT32_MAX)
int16s = biased_integers(-32768, 32767)
int8s = biased_integers(-128, 127)
multipliers = st.one_of(
    st.sampled_from([MULTIPLIER_MIN, MULTIPLIER_MIN + 1, MULTIPLIER_MAX - 1, MULTIPLIER_MAX]),
    st.integers(MULTIPLIER_MIN, MULTIPLIER_MAX),
)
shifts = st.one_of(st.sampled_from([SHIFT_MIN, 30, 31, SHIFT_MAX]), st.integers(SHIFT_MIN, SHIFT_MAX))

# What a saturating operation may narrow to: (low, high, dtype); narrow ranges inside a wider dtype are 2-7 bit roles.
output_ranges = st.sampled_from(
    [
        (-128, 127, "int8"),
        (-127, 127, "int8"),
        (-8, 7, "int8"),
        (-2, 1, "int8"),
        (-32768, 32767, "int16"),
        (-32767, 32767, "int16"),
        (-512, 511, "int16"),
        (0, 65535, "uint16"),
        (INT32_MIN, INT32_MAX, "int32"),
    ]
)


@dataclass(frozen=True)
class RescaleTerm:
    """Operands of one rescale: int32 ``x`` ``[n]``, int32 ``multiplier`` and int8 ``shift`` ``[n]``."""

    x: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray


@st.composite
def rescale_terms(draw: st.DrawFn, count: int = 1) -> list[RescaleTerm]:
    """``count`` terms of equal length (1 to 12)."""
    n = draw(st.integers(1, 12))

    def array(elements: st.SearchStrategy[int], dtype: str) -> np.ndarray:
        return np.array(draw(st.lists(elements, min_size=n, max_size=n)), dtype=dtype)

    return [
        RescaleTerm(array(int32s, "int32"), array(multipliers, "int32"), array(shifts, "int8")) for _ in range(count)
    ]


@dataclass(frozen=True)
class PwlTable:
    """A piecewise-linear table: int32 tensors ``[pieces]``, and the grid of its input."""

    knots: np.ndarray
    slopes: np.ndarray
    intercepts: np.ndarray
    shift: int
    input_low: int
    input_high: int


@st.composite
def pwl_tables(draw: st.DrawFn, input_bits: int) -> PwlTable:
    """Any table of 1 to 16 pieces over the signed ``input_bits`` grid, sane or not."""
    low, high = -(1 << (input_bits - 1)), (1 << (input_bits - 1)) - 1
    shift = draw(st.integers(8, 24))
    inner = draw(st.sets(biased_integers(low + 1, high), max_size=15))
    knots = np.array([low, *sorted(inner)], dtype="int32")
    n = len(knots)
    slopes = draw(st.lists(int32s, min_size=n, max_size=n))
    intercepts = draw(st.lists(int32s, min_size=n, max_size=n))
    return PwlTable(knots, np.array(slopes, "int32"), np.array(intercepts, "int32"), shift, low, high)


@st.composite
def norm_rows(draw: st.DrawFn, lengths: st.SearchStrategy[int]) -> np.ndarray:
    """int16 rows ``[1-3, length]``: noise of any spread, constants, spikes, two-valued rows at the type's ends."""
    length = draw(lengths)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = []
    for kind in draw(st.lists(st.sampled_from(["noise", "constant", "spike", "two", "ramp"]), min_size=1, max_size=3)):
        base = draw(int16s)
        if kind == "noise":
            row = base + np.round(rng.normal(0, draw(st.sampled_from([0.3, 1.0, 30.0, 3000.0, 60000.0])), length))
        elif kind == "constant":
            row = np.full(length, base)
        elif kind == "spike":
            row = np.full(length, base)
            row[rng.integers(length)] = draw(int16s)
        elif kind == "two":
            row = np.where(rng.random(length) < draw(st.sampled_from([0.5, 0.01])), base, draw(int16s))
        else:
            row = base + np.arange(length)
        rows.append(np.clip(row, -32768, 32767).astype("int16"))
    return np.stack(rows)
