"""Exact forms of the arithmetic that need 32 bits where its text takes 64, found and proved while compiling.

``irnn.arithmetic.fixed_point`` states what is computed, in 64 bits that never overflow.  For the constants and proved
ranges of one program the same integers mostly come out of half the width.  What is returned here is proved to give
them: by bounds, or by trying every input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TypeVar

import numpy as np

from irnn.arithmetic import fixed_point
from irnn.arithmetic.fixed_point import INT32_MAX, INT32_MIN
from irnn.arithmetic.numpy_ops import NUMPY

HALF_BITS = 32
# Slopes below this times 16-bit inputs stay within 2**30: no sum with an offset overflows on its way.
SHORT = 1 << 15


@dataclass(frozen=True)
class Rescale:
    """``rescale(x, m, s)`` as ``((x << before) m + 2**(31 + after)) >> 32 >> after``: one shift for all elements.

    The products' upper halves hold what is wanted, so nothing wider than 32 bits is shifted by ``after``.
    before: int32, one for each shift.  low, high: what comes out, for inputs in the range that was given.
    """

    before: np.ndarray
    after: int
    low: int
    high: int


def rescale(multiplier: np.ndarray, shift: np.ndarray, low: int, high: int) -> Rescale | None:
    """The form for inputs from ``low`` to ``high``; None where there is none.

    ``floor(x m 2**-s + 1/2) = floor((x 2**b) m 2**-(s + b) + 1/2)``, and of two floors by powers of two the second is
    one of both.
    """
    multiplier, shift = _elementwise(multiplier, shift)
    together = max(int(shift.max()), HALF_BITS)
    before = together - shift
    if max(abs(low), abs(high)) << int(before.max()) > INT32_MAX:
        return None
    return Rescale(before.astype(np.int32), together - HALF_BITS, *_reach(multiplier, shift, low, high))


@dataclass(frozen=True)
class Doubled:
    """``rescale(x, m, s)`` as ``(2 (x << before) m >> 32) + 2**(after - 1) >> after``: a shift for each element.

    A doubling multiplication gives the upper halves, a rounding shift the rest.
    before, after: int32, one for each shift; after is at least 1.  low, high: as those of :class:`Rescale`.
    """

    before: np.ndarray
    after: np.ndarray
    low: int
    high: int


def doubled(multiplier: np.ndarray, shift: np.ndarray, low: int, high: int) -> Doubled | None:
    """The form for inputs from ``low`` to ``high``; None where there is none.

    ``floor((x m + 2**(s - 1)) 2**-s) = floor((floor(x m 2**-31) + 2**(s - 32)) 2**-(s - 31))`` for ``s >= 32``; with
    smaller shifts x is moved up first.
    """
    multiplier, shift = _elementwise(multiplier, shift)
    before = np.maximum(HALF_BITS - shift, 0)
    largest = max(abs(low), abs(high))
    # Where x is not moved, every x does: 2 x m leaves 64 bits only for two numbers of -2**31.
    if (largest << int(before.max()) > INT32_MAX and before.any()) or int(multiplier.min()) < 0:
        return None
    after = shift + before - (HALF_BITS - 1)
    return Doubled(before.astype(np.int32), after.astype(np.int32), *_reach(multiplier, shift, low, high))


def _elementwise(multiplier: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with as many elements, in int64."""
    shape = np.broadcast_shapes(multiplier.shape, shift.shape)
    return np.broadcast_to(multiplier, shape).astype(np.int64), np.broadcast_to(shift, shape).astype(np.int64)


def _reach(multiplier: np.ndarray, shift: np.ndarray, low: int, high: int) -> tuple[int, int]:
    """The smallest and the largest ``rescale`` of inputs from ``low`` to ``high``."""
    ends = [
        (x * int(m) + (1 << (int(s) - 1))) >> int(s)
        for x in (low, high)
        for m, s in zip(multiplier.flat, shift.flat, strict=True)
    ]
    return min(ends), max(ends)


F = TypeVar("F", Rescale, Doubled)


def added(forms: Sequence[F | None], zero_point: int) -> tuple[list[F], int, int] | None:
    """(forms, the smallest and the largest sum) of terms and a zero point.

    None where a term has no form, or where int32 could not hold the sum, in whatever order it is added up.
    """
    found = [form for form in forms if form is not None]
    reach = abs(zero_point) + sum(max(abs(form.low), abs(form.high)) for form in found)
    if len(found) < len(forms) or reach > INT32_MAX:
        return None
    return found, sum(form.low for form in found) + zero_point, sum(form.high for form in found) + zero_point


@dataclass(frozen=True)
class Lines:
    """``clamp(((x - centres[p]) slopes[p] + offsets[p]) >> shift)`` in 32 bits, p being the piece of x.

    centres: None where they are all 0; then the slopes have 16 bits.  clamps: whether a clamp is needed at all.
    """

    centres: np.ndarray | None
    slopes: np.ndarray
    offsets: np.ndarray
    shift: int
    clamps: bool


def lines(
    knots: np.ndarray, slopes: np.ndarray, intercepts: np.ndarray, shift: int, low: int, high: int, dtype: str
) -> Lines | None:
    """The same integer as ``fixed_point.pwl`` for every input of ``dtype`` (int8 or int16); None where there is none.

    An output is one of few steps, so that fewer bits of the slopes may do: each input of a piece bounds the piece's
    offset from both sides, and any offset between all bounds gives the same integers.
    """
    key = (knots, slopes, intercepts)
    return _lines(*(tuple(a.tolist()) for a in key), shift, low, high, dtype)


@lru_cache(maxsize=256)
def _lines(
    knots: tuple[int, ...],
    slopes: tuple[int, ...],
    intercepts: tuple[int, ...],
    shift: int,
    low: int,
    high: int,
    dtype: str,
) -> Lines | None:
    info = np.iinfo(dtype)
    x = np.arange(info.min, info.max + 1, dtype=np.int64)
    starts, rises, values = (np.array(table, np.int64) for table in (knots, slopes, intercepts))
    wanted = fixed_point.pwl(NUMPY, x, starts, rises, values, shift, low, high, "int64")
    bounds = [0, *np.searchsorted(x, starts[1:]).tolist(), len(x)]
    pieces = [slice(first, last) for first, last in pairwise(bounds)]
    middles = [int(x[part][len(x[part]) // 2]) if x[part].size else 0 for part in pieces]
    steepest = max(map(abs, slopes))
    shortest = next(fewer for fewer in range(shift + 32) if (steepest >> fewer) + 1 < SHORT)
    # Short slopes first; then as many bits as possible, from the middle of each piece.
    tries = [([0] * len(pieces), shortest), *((middles, fewer) for fewer in range(max(shortest, 3)))]
    for centres, fewer in tries:
        found = _fitted(x, wanted, pieces, centres, slopes, fewer, shift - fewer, low, high)
        if found is not None:
            return found
    return None


def _fitted(
    x: np.ndarray,
    wanted: np.ndarray,
    pieces: list[slice],
    centres: list[int],
    slopes: tuple[int, ...],
    fewer: int,
    shift: int,
    low: int,
    high: int,
) -> Lines | None:
    """Lines whose slopes have ``fewer`` bits than those given, checked on every input; None where there are none."""
    if shift < 1:
        return None
    lines = [
        _line(x[part] - centre, wanted[part], slope, fewer, shift, low, high)
        for part, centre, slope in zip(pieces, centres, slopes, strict=True)
    ]
    if any(line is None for line in lines):
        return None
    each = np.concatenate([np.full(part.stop - part.start, p) for p, part in enumerate(pieces)])
    centre, (short, offset) = np.array(centres)[each], (np.array(column)[each] for column in zip(*lines, strict=True))
    products = (x - centre) * short
    intermediate = (x - centre, short, offset, products, products + offset)
    if any(int(values.min()) < INT32_MIN or int(values.max()) > INT32_MAX for values in intermediate):
        return None
    plain = (products + offset) >> shift
    if not np.array_equal(np.clip(plain, low, high), wanted):
        raise AssertionError("lines in 32 bits differ from the function that they stand for")
    slopes_i32, offsets_i32 = (np.array(column, np.int64).astype(np.int32) for column in zip(*lines, strict=True))
    return Lines(
        np.array(centres, np.int32) if any(centres) else None,
        slopes_i32,
        offsets_i32,
        shift,
        clamps=not np.array_equal(plain, wanted),
    )


def _line(
    x: np.ndarray, wanted: np.ndarray, slope: int, fewer: int, shift: int, low: int, high: int
) -> tuple[int, int] | None:
    """(slope, offset) of ``(x slope + offset) >> shift`` that gives what is wanted of one piece, up to a clamp."""
    short = (slope + ((1 << fewer) >> 1)) >> fewer
    products = x * short
    at_least = ((wanted << shift) - products)[wanted > low]
    at_most = (((wanted + 1) << shift) - 1 - products)[wanted < high]
    ends = [*([int(at_least.max())] if at_least.size else []), *([int(at_most.min())] if at_most.size else [])]
    if len(ends) == 2 and ends[0] > ends[1]:
        return None
    return short, sum(ends) // max(1, len(ends))
