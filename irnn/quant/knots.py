"""Where the pieces of a table begin: the search among the integers of its input's grid (see ``irnn.quant.pwl``)."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# Inputs of up to 9 bits keep every integer as a candidate knot.  On a 16-bit grid 1000 candidates come within 1 % (2 %
# at 96 pieces) of the RMS error of 3000, at a tenth of the search.
CANDIDATES_MAX = 1000
# Ends at a time in the search for the best knots: so many sums stay in a processor's second cache.
_BLOCK = 64


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
