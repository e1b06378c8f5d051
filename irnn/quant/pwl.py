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

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from irnn.arithmetic import fixed_point
from irnn.arithmetic.numpy_ops import NUMPY
from irnn.errors import IrnnError
from irnn.quant.functions import FUNCTIONS
from irnn.quant.knots import METHODS, candidate_knots

BITS_MIN, BITS_MAX = 2, 16
SHIFT_MIN, SHIFT_MAX = 8, 24
# Tables are fitted again for every copy of a network, and for networks whose ranges are the same.
_KEPT = 1024
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
