"""Quantization-aware piecewise-linear tables: sigmoid, tanh, exp and others as a few integer lines (iRNN, QA-PWL).

A function of a quantized input takes only as many values as the input has integers, so knots are chosen among those
integers: start with all of them, and drop the knot whose removal adds the least squared error until ``pieces`` lines
remain (``method="greedy"``, the paper's), or find the best knots by dynamic programming (``method="optimal"``).  The
error is counted over every input, in steps of the *output's* grid, against the real function clipped to that grid.
Lines run through the function's own values at the knots: the table is continuous, keeps the function's monotonicity
and its end values, none of which free least-squares lines would promise.

``irnn.arithmetic.fixed_point.pwl`` is the only evaluation of a table; this module only makes them.
"""

from __future__ import annotations

import heapq
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from irnn.arithmetic import fixed_point
from irnn.arithmetic.numpy_ops import NUMPY
from irnn.errors import IrnnError
from irnn.quant.functions import FUNCTIONS

BITS_MIN, BITS_MAX = 2, 16
SHIFT_MIN, SHIFT_MAX = 8, 24
# Inputs of up to 9 bits keep every integer as a candidate knot.  On a 16-bit grid 1000 candidates come within 1 % (2 %
# at 96 pieces) of the RMS error of 3000, at a tenth of the search.
CANDIDATES_MAX = 1000
# Tables are fitted again for every copy of a network, and for networks whose ranges are the same.
_KEPT = 1024
# Ends at a time in the search for the best knots: so many sums stay in a processor's second cache.
_BLOCK = 64
_OUTPUT_DTYPES = ("int8", "uint8", "int16", "uint16")


@dataclass(frozen=True)
class PwlError:
    """Error of a table's integers against the real function clipped to the output's range, over the whole input grid.

    ``max_steps`` and ``rms_steps`` are in output steps; rounding alone costs 0.5 and about 0.29.  ``monotone``: the
    integers never turn back.  ``ends_exact``: first and last input give the function's value, rounded once (to within
    the intercepts' own half unit).
    """

    max_steps: float
    rms_steps: float
    monotone: bool
    ends_exact: bool


@dataclass(frozen=True, eq=False)
class PwlTable:
    """A piecewise-linear function between two integer grids; made by :func:`fit`.

    ``knots``, ``slopes``, ``intercepts``: int32[p], p <= the pieces asked for.  ``knots`` are ascending inputs, the
    first is ``quant_min``; ``slopes`` are output steps per input step with ``shift`` fractional bits; ``intercepts``
    are the outputs at the knots with ``shift`` fractional bits, the output's zero point included::

        y = clamp(((x - knot_p) * slope_p + intercept_p + 2**(shift - 1)) >> shift, output_min, output_max)
        p = count(knots <= x) - 1

    Every intermediate of that expression fits int32 for every input of the grid (:func:`fits_int32`).
    """

    function: str
    scale: float
    zero_point: int
    quant_min: int
    quant_max: int
    output_scale: float
    output_zero_point: int
    output_min: int
    output_max: int
    knots: np.ndarray
    slopes: np.ndarray
    intercepts: np.ndarray
    shift: int

    def __call__(self, q: np.ndarray) -> np.ndarray:
        """Integers of the input's grid, any shape -> integers of the output's grid, in ``output_dtype``."""
        q = np.asarray(q)
        if q.size and (q.min() < self.quant_min or q.max() > self.quant_max):
            raise IrnnError(
                f"{self.function} table: input {q.min()}..{q.max()} leaves the grid [{self.quant_min}, "
                f"{self.quant_max}] that the table was fitted on; clamp the input or fit a wider table"
            )
        return fixed_point.pwl(
            NUMPY,
            q,
            self.knots,
            self.slopes,
            self.intercepts,
            self.shift,
            self.output_min,
            self.output_max,
            self.output_dtype,
        )

    @property
    def output_dtype(self) -> str:
        """The narrowest integer type that holds the output's range: int8, uint8, int16 or uint16."""
        return _output_dtype(self.output_min, self.output_max)

    @property
    def grid(self) -> np.ndarray:
        """Every input, int32[quant_max - quant_min + 1]."""
        return np.arange(self.quant_min, self.quant_max + 1, dtype=np.int32)

    @property
    def real_knots(self) -> np.ndarray:
        """float64[p]: real inputs at the knots.

        With the other two arrays, ``real_values[p] + real_slopes[p] * (x - real_knots[p])`` is the table's unrounded,
        unclamped value: what training simulates, and ``real_slopes[p]`` is its gradient.
        """
        return self.scale * (self.knots.astype(np.float64) - self.zero_point)

    @property
    def real_slopes(self) -> np.ndarray:
        """float64[p]: slope of each line, real output per real input (see ``real_knots``)."""
        return self.slopes * 2.0**-self.shift * (self.output_scale / self.scale)

    @property
    def real_values(self) -> np.ndarray:
        """float64[p]: real outputs at the knots (see ``real_knots``)."""
        return (self.intercepts * 2.0**-self.shift - self.output_zero_point) * self.output_scale

    def fits_int32(self) -> bool:
        """Whether 32-bit arithmetic evaluates this table on all of its grid; :func:`fit` returns no other table."""
        return fits_int32(self.knots, self.slopes, self.intercepts, self.shift, self.quant_max)

    def error(self) -> PwlError:
        """Compare the table with its function at every input."""
        x = self.scale * (self.grid.astype(np.float64) - self.zero_point)
        steps = output_steps(
            self.function, x, self.output_scale, self.output_zero_point, self.output_min, self.output_max
        )
        y = self(self.grid).astype(np.int64)
        rises = np.diff(y)
        difference = np.abs(y - steps)
        return PwlError(
            max_steps=float(difference.max()),
            rms_steps=float(np.sqrt(np.mean(difference**2))),
            monotone=bool((rises >= 0).all() or (rises <= 0).all()),
            ends_exact=bool((difference[[0, -1]] <= 0.5 + 2.0**-self.shift).all()),
        )


def fits_int32(knots: np.ndarray, slopes: np.ndarray, intercepts: np.ndarray, shift: int, quant_max: int) -> bool:
    """Whether every intermediate of a table's evaluation fits int32 for every input in [knots[0], quant_max].

    This proves the bound: within a piece each sum is linear in x, so its extremes lie at the piece's first and last
    input.  Whatever the order in which a kernel adds product, intercept and rounding constant, it is covered.
    """
    last_i64 = np.append(knots[1:].astype(np.int64) - 1, quant_max)
    slopes_i64, intercepts_i64 = slopes.astype(np.int64), intercepts.astype(np.int64)
    product_i64 = (last_i64 - knots) * slopes_i64
    half = 1 << (shift - 1)
    parts = [slopes_i64, intercepts_i64, product_i64, product_i64 + intercepts_i64]
    extremes = np.concatenate([part + rounding for part in parts for rounding in (0, half)])
    return bool(extremes.min() >= fixed_point.INT32_MIN and extremes.max() <= fixed_point.INT32_MAX)


def output_steps(
    function: str, x: np.ndarray, output_scale: float, output_zero_point: int, output_min: int, output_max: int
) -> np.ndarray:
    """The named real function at real ``x``, float64, in unrounded steps of the output's grid, clipped to its range."""
    with np.errstate(over="ignore"):  # exp far below zero: infinity is clipped like any large value
        return np.clip(FUNCTIONS[function](x) / output_scale + output_zero_point, output_min, output_max)


def candidate_knots(steps: np.ndarray) -> np.ndarray:
    """Positions at which a knot may stand: ascending indices into ``steps`` (float64[n]), both ends included.

    All of them on a small grid.  On a large one half of the candidates are spread evenly and half where the function
    bends, by the density |f''|^(2/5) of the knots that asymptotically minimize a linear spline's squared error.  Even
    spacing alone fails when a 16-bit grid spans far more than the function's bend: +-300 around a sigmoid leaves it
    a few dozen candidates and 32 pieces then err by 0.062 steps (RMS) instead of 0.022.
    """
    n = len(steps)
    if n <= CANDIDATES_MAX:
        return np.arange(n)
    bend = np.zeros(n)
    bend[1:-1] = np.abs(np.diff(steps, 2)) ** 0.4
    total = bend.sum()
    density = 0.5 / n + 0.5 * bend / total if total > 0 else np.full(n, 1 / n)
    mass = np.cumsum(density)
    quantiles = mass[-1] * (np.arange(CANDIDATES_MAX - 2) + 0.5) / (CANDIDATES_MAX - 2)
    return np.unique(np.concatenate([[0], np.searchsorted(mass, quantiles), [n - 1]]))


class ChordError:
    """Squared error of the straight line between two points of a curve, over all samples between them, in O(1).

    ``steps``: float64[n], the curve.  ``points``: ascending indices, the possible ends.  Prefix sums of y, y*y and t*y
    give each chord's error; y and t are centred first, which keeps the cancellation near 1e-5 on 65536 samples of an
    8-bit output.
    """

    def __init__(self, steps: np.ndarray, points: np.ndarray) -> None:
        y = steps - 0.5 * (steps.min() + steps.max())
        t = np.arange(len(y)) - 0.5 * len(y)
        # Samples in [a, b): the chord meets the curve at b, and the sample there belongs to the next chord.
        sums = (np.concatenate([[0.0], np.cumsum(term)])[points] for term in (y, y * y, t * y))
        self._of_points = [points, t[points], y[points], *sums]

    def __call__(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Errors of the chords from points number ``i`` to points number ``j`` > ``i`` (they broadcast)."""
        return np.maximum(_squares(self._of_points, i, j), 0.0)

    def one(self) -> Callable[[int, int], float]:
        """The same for one chord a call: by numbers, which are quicker one by one, with the same roundings."""
        lists = [array.tolist() for array in self._of_points]
        return lambda i, j: max(_squares(lists, i, j), 0.0)


def _squares(of_points: Sequence[Any], i: Any, j: Any) -> Any:
    """See :class:`ChordError`; of arrays and arrays of indices, or of lists and two indices."""
    at, t, y, sums_y, sums_yy, sums_ty = of_points
    length, y_i = at[j] - at[i], y[i]
    slope = (y[j] - y_i) / length
    sum_y = sums_y[j] - sums_y[i]
    sum_ty = sums_ty[j] - sums_ty[i] - t[i] * sum_y
    sum_t = length * (length - 1) / 2
    sum_tt = sum_t * (2 * length - 1) / 3
    chord_squares = length * y_i * y_i + slope * (2 * y_i * sum_t + slope * sum_tt)
    return sums_yy[j] - sums_yy[i] - 2 * (y_i * sum_y + slope * sum_ty) + chord_squares


def greedy_knots(steps: np.ndarray, points: np.ndarray, pieces: int) -> np.ndarray:
    """Drop knots from ``points``, always the one that adds least squared error, until ``pieces`` chords remain.

    Returns the remaining ascending indices into ``steps``, both ends included: min(pieces + 1, len(points)) of them.
    Ties go to the lower index.
    """
    chord = ChordError(steps, points)
    one = chord.one()
    count = len(points)
    previous, following = list(range(-1, count - 1)), list(range(1, count + 1))
    numbers = np.arange(count)
    # Of the chord that starts at each remaining knot.
    error_after = np.asarray(chord(numbers[:-1], numbers[1:])).tolist()
    added = chord(numbers[:-2], numbers[2:]) - error_after[:-1] - error_after[1:]
    # Lazy deletion: a changed knot is pushed again with a new revision, and its older entries are skipped when popped.
    revision = [0] * count
    heap = [(cost, k, 0) for k, cost in enumerate(added.tolist(), start=1)]
    heapq.heapify(heap)
    for _ in range(count - 1 - pieces):
        while True:
            _, dropped, seen = heapq.heappop(heap)
            if revision[dropped] == seen:
                break
        revision[dropped] = -1
        left, right = previous[dropped], following[dropped]
        following[left], previous[right] = right, left
        error_after[left] = one(left, right)
        for k in (left, right):
            if 0 < k < count - 1:
                revision[k] += 1
                cost = one(previous[k], following[k]) - error_after[previous[k]] - error_after[k]
                heapq.heappush(heap, (cost, k, revision[k]))
    kept = [0]
    while kept[-1] != count - 1:
        kept.append(following[kept[-1]])
    return points[kept]


def optimal_knots(steps: np.ndarray, points: np.ndarray, pieces: int) -> np.ndarray:
    """The knots among ``points`` that minimize the squared error with at most ``pieces`` chords.

    Dynamic programming, O(pieces * len(points)**2).  Returns ascending indices into ``steps``, both ends included.
    At most, because one more knot can hurt: beside the inflection of a coarsely sampled sigmoid a single chord may
    balance its two errors better than any two do.  Ties go to fewer pieces, then to the lower index.
    """
    chord = ChordError(steps, points)
    count = len(points)
    numbers = np.arange(count)
    # error[end, start], so that the minimum below runs along memory; a block of ends has starts up to its last end.
    blocks = [slice(k, min(k + _BLOCK, count)) for k in range(0, count, _BLOCK)]
    error = [_errors(chord, numbers[ends], numbers[: ends.stop]) for ends in blocks]
    best = np.concatenate([block[:, 0] for block in error])  # least error of the chords so far from the first point
    totals, chosen_starts = [best[-1]], []
    for _ in range(1, min(pieces, count - 1)):
        starts, least = np.empty(count, np.int64), np.empty(count)
        for ends, block in zip(blocks, error, strict=True):
            through = block + best[: ends.stop]
            starts[ends] = through.argmin(axis=1)
            least[ends] = through[numbers[: len(through)], starts[ends]]
        best = least
        totals.append(best[-1])
        chosen_starts.append(starts)
    kept = [count - 1]
    for starts in reversed(chosen_starts[: int(np.argmin(totals))]):
        kept.append(int(starts[kept[-1]]))
    return points[[0, *reversed(kept)]]


def _errors(chord: ChordError, ends: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """[ends, starts] of the chords between them, inf where none runs forward."""
    forward = ends[:, None] > starts
    with np.errstate(divide="ignore", invalid="ignore"):  # of no length
        return np.where(forward, chord(starts, np.broadcast_to(ends[:, None], forward.shape)), np.inf)


METHODS = {"greedy": greedy_knots, "optimal": optimal_knots}


def fit(
    function: str,
    *,
    scale: float,
    zero_point: int,
    bits: int,
    output_scale: float,
    output_zero_point: int,
    output_min: int,
    output_max: int,
    pieces: int,
    method: str = "greedy",
    quant_min: int | None = None,
    quant_max: int | None = None,
) -> PwlTable:
    """Fit ``function`` on the grid of its quantized input.

    function: one of ``FUNCTIONS``; "exp" is exp(-x), for softmax's distance below the maximum.
    scale, zero_point, bits: the input, ``x = scale * (q - zero_point)``, q in [-2**(bits-1), 2**(bits-1) - 1] unless
        ``quant_min`` and ``quant_max`` give another range of at most 2**bits integers (0..255 for exp).
    output_*: the output integer is ``clamp(f(x) / output_scale + output_zero_point, output_min, output_max)``.
    pieces: lines at most.  "greedy" gives exactly min(pieces, inputs - 1); "optimal" fewer where more would not help.

    The table's shift is the largest in [8, 24] for which int32 holds every intermediate.  The same arguments give the
    same table.  Source: iRNN (Sari et al.), quantization-aware PWL.  Raises IrnnError on arguments out of range.
    """
    _check_choice("function", function, FUNCTIONS)
    _check_choice("method", method, METHODS)
    if not BITS_MIN <= bits <= BITS_MAX:
        raise IrnnError(f"input bits {bits}: a PWL table takes {BITS_MIN} to {BITS_MAX} bits")
    if pieces < 1:
        raise IrnnError(f"pieces {pieces}: a PWL table needs at least 1")
    for name, value in (("scale", scale), ("output_scale", output_scale)):
        if not (math.isfinite(value) and value > 0):
            raise IrnnError(f"{name} {value}: must be positive and finite")
    quant_min = -(1 << (bits - 1)) if quant_min is None else quant_min
    quant_max = (1 << (bits - 1)) - 1 if quant_max is None else quant_max
    if not 0 < quant_max - quant_min < 1 << bits:
        raise IrnnError(f"input range [{quant_min}, {quant_max}]: {bits} bits hold 2 to {1 << bits} ascending integers")
    _output_dtype(output_min, output_max)  # refuses a range that no output type holds
    return _fit(
        function,
        float(scale),
        operator.index(zero_point),
        float(output_scale),
        operator.index(output_zero_point),
        int(output_min),
        int(output_max),
        int(pieces),
        method,
        int(quant_min),
        int(quant_max),
    )


@lru_cache(maxsize=_KEPT)
def _fit(
    function: str,
    scale: float,
    zero_point: int,
    output_scale: float,
    output_zero_point: int,
    output_min: int,
    output_max: int,
    pieces: int,
    method: str,
    quant_min: int,
    quant_max: int,
) -> PwlTable:
    """See :func:`fit`, which has looked at the arguments."""
    grid = np.arange(quant_min, quant_max + 1)
    x = scale * (grid.astype(np.float64) - zero_point)
    steps = output_steps(function, x, output_scale, output_zero_point, output_min, output_max)
    chosen = METHODS[method](steps, candidate_knots(steps), pieces)
    knots = grid[chosen[:-1]].astype(np.int32)
    # 16-bit outputs end at 15, since 65535 * 2**15 + 2**14 < 2**31; narrower ones earlier: a fitting shift exists.
    for shift in range(SHIFT_MAX, SHIFT_MIN - 1, -1):
        slopes_i64, intercepts_i64 = _integer_lines(chosen, steps[chosen], shift)
        if fits_int32(knots, slopes_i64, intercepts_i64, shift, quant_max):
            break
    lines = (knots, slopes_i64.astype(np.int32), intercepts_i64.astype(np.int32))
    for array in lines:  # which all that ask for this table share
        array.setflags(write=False)
    return PwlTable(
        function,
        scale,
        zero_point,
        quant_min,
        quant_max,
        output_scale,
        output_zero_point,
        output_min,
        output_max,
        *lines,
        shift,
    )


def _integer_lines(positions: np.ndarray, values: np.ndarray, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """Slopes and intercepts (int64[p]) of the chords through ``values`` at ``positions`` (both [p + 1]).

    Slopes are rounded toward zero: a line then never passes its successor's start, so rounding cannot break
    monotonicity.  The last line has no successor, and where that rounding would cost it the function's end value its
    slope goes one unit the other way (enough for a line of up to 2**shift inputs: any line, when the output is 8-bit).
    """
    ends_i64 = np.floor(values * 2.0**shift + 0.5).astype(np.int64)
    lengths, rises_i64 = np.diff(positions), np.diff(ends_i64)
    slopes_i64 = np.sign(rises_i64) * (np.abs(rises_i64) // lengths)
    half = 1 << (shift - 1)
    reached = ends_i64[-2] + slopes_i64[-1] * lengths[-1]
    if (reached + half) >> shift != (ends_i64[-1] + half) >> shift:
        slopes_i64[-1] += np.sign(rises_i64[-1])
    return slopes_i64, ends_i64[:-1]


def _output_dtype(output_min: int, output_max: int) -> str:
    for dtype in _OUTPUT_DTYPES:
        limits = np.iinfo(dtype)
        if limits.min <= output_min < output_max <= limits.max:
            return dtype
    raise IrnnError(
        f"output range [{output_min}, {output_max}]: must be ascending and fit one of {', '.join(_OUTPUT_DTYPES)}"
    )


def _check_choice(name: str, value: str, allowed: dict[str, Callable]) -> None:
    if value not in allowed:
        raise IrnnError(f"{name} {value!r} is unknown; choose one of {', '.join(allowed)}")
