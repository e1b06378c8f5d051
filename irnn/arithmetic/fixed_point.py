"""THE integer arithmetic: every rounding, saturation and table look-up of the project is defined here, once.

Only the codes that activations get at run time stand beside it, in ``run_time_codes``.

Each function takes the operations namespace ``ops`` as its first argument (``numpy_ops``, ``torch_ops``;
``deploy_tvm`` adds one that stages the same expressions into TVM), so the reference interpreter, the evaluation of a
quantization-aware model and the compiled library execute *this* text and nobody re-implements a rounding.  ``+ - * >>``
and comparisons are the operands' own; the namespace supplies the rest::

    to(x, dtype)  where(condition, a, b)  clip(x, low, high)  take(table, index)  abs(x)  row_sum(x)  row_max(x)
    floor_div(a, b)  isqrt(x)  count_le(sorted_table, x)  keep(arrays)  places(x)

``row_sum`` and ``row_max`` reduce the last axis and keep it; ``places`` are its int32 indices, 0 and up.
``floor_div`` needs b > 0, ``isqrt`` x >= 0.  ``keep`` gives the same arrays, computed once for all that reads them.

There is one rounding rule: half up, ``floor(v + 1/2)``.  Real value of a tensor: ``r = scale * (q - zero_point)``;
the multipliers and shifts stand for real factors ``multiplier * 2**-shift`` and are chosen by ``multipliers``.
"""

from __future__ import annotations

from typing import Any

MULTIPLIER_MIN = 1 << 30
MULTIPLIER_MAX = (1 << 31) - 1
SHIFT_MIN, SHIFT_MAX = 1, 62
INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1

# MadNorm: the reciprocal R = (N << 48) // d.  |u| <= d, so |u * R| <= N << 48 <= 2**59 for N <= 2048: int64 holds it.
NORM_LENGTH_MAX = 2048
RECIPROCAL_BITS = 48
# The normalized value t has 10 fractional bits: int16 then spans +-32 deviations, and half a step is 2**-11 of one.
NORM_FRACTION_BITS = 10
# Integer LayerNorm: isqrt(S << 10) has 5 fractional bits, and S <= 2**52 (N <= 2048, int16), so S << 10 fits int64.
ROOT_FRACTION_BITS = 5
# |u| <= sqrt(N) * root / 2**5 (N <= 2048), so |u * R| <= 45.3 * 2**(54) < 2**60.
ROOT_RECIPROCAL_BITS = 59

# Attention: distances of a score below the best one, 0 .. 255, index a table of exp(-x) in 1/65535.  The table's last
# entry is 0, so a distance that is clamped there contributes nothing.
EXP_ENTRIES = 256
EXP_ONE = 65535
# R = 2**48 // sum(e).  |sum(e v')| <= 255 sum(e), so |sum(e v') R| <= 255 * 2**48 < 2**56: int64 holds it.
# R loses less than sum(e) / 2**48 of itself, 2**-16 for the 2**16 places that a memory may have.
ATTENTION_RECIPROCAL_BITS = 48
# The mean of v' has 16 fractional bits: below 255 * 2**16 < 2**24 it fits int32, and what rounding and reciprocal cost
# (2**-17 and 255 * 2**-16 steps of v') is far below the half step of the requantization that follows.
ATTENTION_FRACTION_BITS = 16

# A mean over time keeps so many bits below a step: what that rounds away, 2**-9, is far below the half step of the
# requantization that follows.  |x'| <= 65535, so the mean stays below 2**24, and the sum of 2**31 steps below 2**47.
MEAN_FRACTION_BITS = 8

Array = Any


def rescale(ops: Any, x: Array, multiplier: Array, shift: Array) -> Array:
    """``floor(x * multiplier * 2**-shift + 1/2)`` as int64.

    ``x`` is int32 (or narrower), ``multiplier`` in [2**30, 2**31), ``shift`` in [1, 62]; they broadcast.  The product
    stays below 2**62 and the rounding constant below 2**61, so int64 never overflows.
    """
    shift_i64 = ops.to(shift, "int64")
    product_i64 = ops.to(x, "int64") * ops.to(multiplier, "int64")
    half_i64 = ops.to(1, "int64") << (shift_i64 - ops.to(1, "int64"))
    return (product_i64 + half_i64) >> shift_i64


def saturate(ops: Any, x: Array, low: int, high: int, dtype: str) -> Array:
    """``x`` clamped to [low, high] and narrowed to ``dtype``."""
    return ops.to(ops.clip(x, low, high), dtype)


def requantize(
    ops: Any, terms: list[tuple[Array, Array, Array]], zero_point: int, low: int, high: int, dtype: str
) -> Array:
    """``clamp(sum of rescale(x, multiplier, shift) + zero_point)``: accumulators and products to a narrow integer.

    ``terms`` lists (x, multiplier, shift).  With one term this is the requantization of an accumulator; with two it is
    the cell update ``clamp16(rescale(f' c) + rescale(i' j'))`` or a residual sum: each term rounds once, the sum
    saturates once.
    """
    total_i64 = rescale(ops, *terms[0])
    for term in terms[1:]:
        total_i64 = total_i64 + rescale(ops, *term)
    return saturate(ops, total_i64 + ops.to(zero_point, "int64"), low, high, dtype)


def add(ops: Any, a: Array, b: Array, low: int, high: int, dtype: str) -> Array:
    """``clamp(a + b)`` of two int16 tensors that share one scale with zero point 0."""
    return saturate(ops, ops.to(a, "int32") + ops.to(b, "int32"), low, high, dtype)


def multiply(ops: Any, a: Array, b: Array, zero_point_a: int, zero_point_b: int) -> Array:
    """``(a - zero_point_a) * (b - zero_point_b)`` as int32.

    An 8-bit by a 16-bit operand gives at most 255 * 32768 < 2**23; ``convert`` proves the bound for each use.
    """
    a_i32 = ops.to(a, "int32") - ops.to(zero_point_a, "int32")
    b_i32 = ops.to(b, "int32") - ops.to(zero_point_b, "int32")
    return a_i32 * b_i32


def affine(ops: Any, x: Array, zero_point: int, gain: Array, bias: Array) -> Array:
    """``gain (x - zero_point) + bias`` as int32, element by element; the bound is proved for each use."""
    return ops.to(gain, "int32") * (ops.to(x, "int32") - ops.to(zero_point, "int32")) + ops.to(bias, "int32")


def complement(ops: Any, x: Array) -> Array:
    """``-1 - x`` as int8: one minus a sigmoid gate of scale 1/255 and zero point -128, whose primed value is 255 - x'.

    -128 and 127 become each other: int8 holds every result.
    """
    return ops.to(ops.to(-1, "int32") - ops.to(x, "int32"), "int8")


def mod_relu(ops: Any, x: Array, bias: Array, low: int, high: int, dtype: str) -> Array:
    """``clamp(sgn(x) max(|x| + bias, 0))`` with ``sgn(0) = 0``; x int16 (or int8) of zero point 0, |bias| < 2**30."""
    size_i32 = ops.abs(ops.to(x, "int32"))
    zero_i32 = ops.to(0, "int32")
    grown_i32 = ops.clip(size_i32 + bias, 0, INT32_MAX)
    signed_i32 = ops.where(zero_i32 <= ops.to(x, "int32"), grown_i32, zero_i32 - grown_i32)
    return saturate(ops, ops.where(size_i32 <= zero_i32, zero_i32, signed_i32), low, high, dtype)


def pwl(
    ops: Any,
    x: Array,
    knots: Array,
    slopes: Array,
    intercepts: Array,
    shift: int,
    low: int,
    high: int,
    dtype: str,
) -> Array:
    """Piecewise-linear function ``clamp(((x - knot_p) * slope_p + intercept_p + 2**(shift-1)) >> shift)``.

    ``knots`` are ascending integers of the input's grid and the first is its minimum; the piece ``p`` is the number of
    knots <= x, minus one.  ``intercepts`` carry ``shift`` fractional bits and the output's zero point: whole-step
    intercepts would cost half a step of accuracy.  ``shift`` in [8, 24].
    """
    piece = ops.count_le(knots, x) - ops.to(1, "int32")
    distance_i64 = ops.to(x, "int64") - ops.to(ops.take(knots, piece), "int64")
    y_i64 = distance_i64 * ops.to(ops.take(slopes, piece), "int64") + ops.to(ops.take(intercepts, piece), "int64")
    half_i64 = ops.to(1 << (shift - 1), "int64")
    return saturate(ops, (y_i64 + half_i64) >> ops.to(shift, "int64"), low, high, dtype)


def _scale_and_shift_norm(
    ops: Any, t_i64: Array, gamma: Array, beta: Array, multiplier: Array, shift: Array, low: int, high: int, dtype: str
) -> Array:
    """``requantize(gamma * clamp16(t) + beta)``, in int32: gamma is symmetric (|gamma| <= 32767) and |beta| <= 2**30.

    32767 * 32768 + 2**30 = 2**31 - 2**15: a gamma of -32768 could overflow.
    """
    t_i32 = ops.to(ops.clip(t_i64, -32768, 32767), "int32")
    acc_i32 = ops.to(gamma, "int32") * t_i32 + ops.to(beta, "int32")
    return requantize(ops, [(acc_i32, multiplier, shift)], 0, low, high, dtype)


def mad_norm(
    ops: Any,
    x: Array,
    length: int,
    gamma: Array,
    beta: Array,
    multiplier: Array,
    shift: Array,
    low: int,
    high: int,
    dtype: str,
) -> Array:
    """MadNorm (iRNN): ``gamma * (x - mean) / mean(|x - mean|) + beta`` over the last axis of an int16 tensor.

    ``u = N x - sum(x)``, ``d = sum|u|``, ``R = (N << 48) // d``, ``t = (u R + 2**37) >> 38`` with 10 fractional bits:
    one division a row, no square and no root.  ``d = 0`` (all elements equal) gives t = 0.  t is within half a step
    plus 2**-11 of the exact quotient (the rounding, plus |u| <= 2**27 times the floored reciprocal's 2**-38).
    ``gamma`` is int16 in +-32767, ``beta`` int32 at gamma's scale times 2**-10, ``length`` N <= 2048.
    """
    x_i64 = ops.to(x, "int64")
    n_i64 = ops.to(length, "int64")
    u_i64 = x_i64 * n_i64 - ops.row_sum(x_i64)
    d_i64 = ops.row_sum(ops.abs(u_i64))
    reciprocal_i64 = ops.floor_div(ops.to(length << RECIPROCAL_BITS, "int64"), ops.clip(d_i64, 1, 1 << 62))
    drop = RECIPROCAL_BITS - NORM_FRACTION_BITS
    t_i64 = (u_i64 * reciprocal_i64 + ops.to(1 << (drop - 1), "int64")) >> ops.to(drop, "int64")
    return _scale_and_shift_norm(ops, t_i64, gamma, beta, multiplier, shift, low, high, dtype)


def layer_norm(
    ops: Any,
    x: Array,
    length: int,
    gamma: Array,
    beta: Array,
    multiplier: Array,
    shift: Array,
    low: int,
    high: int,
    dtype: str,
) -> Array:
    """LayerNorm by an integer square root: ``gamma * (x - mean) / std + beta`` over the last axis (int16).

    ``S = N sum(x^2) - sum(x)^2 = N^2 var``; ``root = isqrt(S << 10)``, ``R = 2**59 // root``, and
    ``t = (u R + 2**43) >> 44`` has 10 fractional bits.  The root is floored, so t is too large by a factor below
    ``1 + 1 / root``, root being 2**5 N std: 3 % in the worst case (N std = 1, std in input steps), about 0.01 % at
    N = 300 and one step of spread.  A constant row gives t = 0; there is no epsilon.
    """
    x_i64 = ops.to(x, "int64")
    n_i64 = ops.to(length, "int64")
    sum_i64 = ops.row_sum(x_i64)
    u_i64 = x_i64 * n_i64 - sum_i64
    spread_i64 = n_i64 * ops.row_sum(x_i64 * x_i64) - sum_i64 * sum_i64
    root_i64 = ops.isqrt(spread_i64 << ops.to(2 * ROOT_FRACTION_BITS, "int64"))
    reciprocal_i64 = ops.floor_div(ops.to(1 << ROOT_RECIPROCAL_BITS, "int64"), ops.clip(root_i64, 1, 1 << 62))
    drop = ROOT_RECIPROCAL_BITS - ROOT_FRACTION_BITS - NORM_FRACTION_BITS
    t_i64 = (u_i64 * reciprocal_i64 + ops.to(1 << (drop - 1), "int64")) >> ops.to(drop, "int64")
    return _scale_and_shift_norm(ops, t_i64, gamma, beta, multiplier, shift, low, high, dtype)


def residual(
    ops: Any, terms: list[tuple[Array, int, Array, Array]], zero_point: int, low: int, high: int, dtype: str
) -> Array:
    """``clamp(sum of rescale(x - zero_point_x, multiplier, shift) + zero_point)`` of narrow tensors.

    ``terms`` lists (x, zero_point_x, multiplier, shift): a residual or skip sum, each term at its own scale.
    """
    centred = [(ops.to(x, "int32") - ops.to(zero, "int32"), m, n) for x, zero, m, n in terms]
    return requantize(ops, centred, zero_point, low, high, dtype)


def subtract(
    ops: Any,
    a: tuple[Array, int, Array, Array],
    b: tuple[Array, int, Array, Array],
    zero_point: int,
    low: int,
    high: int,
    dtype: str,
) -> Array:
    """``clamp(rescale(a - zero_point_a, ...) + rescale(zero_point_b - b, ...) + zero_point)`` of narrow tensors.

    ``a`` and ``b`` are terms as those of :func:`residual`.  b is negated before it is rounded: rounding half up is not
    odd, and the negative of a rounded value would be rounded half down.
    """
    x, zero_a, multiplier_a, shift_a = a
    y, zero_b, multiplier_b, shift_b = b
    first_i32 = ops.to(x, "int32") - ops.to(zero_a, "int32")
    second_i32 = ops.to(zero_b, "int32") - ops.to(y, "int32")
    terms = [(first_i32, multiplier_a, shift_a), (second_i32, multiplier_b, shift_b)]
    return requantize(ops, terms, zero_point, low, high, dtype)


def mean(ops: Any, total: Array, count: Array) -> Array:
    """``total / count`` as int32 with ``MEAN_FRACTION_BITS`` fractional bits, rounded half up; both int64, count >= 1.

    ``floor((total 2**9 + count) / (2 count))``: exact, one division an element.
    """
    doubled_i64 = ops.to(total, "int64") << ops.to(MEAN_FRACTION_BITS + 1, "int64")
    return ops.to(ops.floor_div(doubled_i64 + count, count + count), "int32")


def top(ops: Any, x: Array, count: int) -> list[Array]:
    """The ``count`` largest of int32 x along the last axis, the largest first, then their places, each ``[..., 1]``.

    Of equal elements the lower place comes first.  What has been taken is the lowest integer at the last place.
    """
    lowest_i32 = ops.to(INT32_MIN, "int32")
    turned_i32 = ops.to(0, "int32") - ops.places(x)
    values, places = [], []
    for _ in range(count):
        best_i32 = ops.row_max(x)
        # The highest of the places turned round is the lowest place.
        at_i32 = ops.row_max(ops.where(best_i32 <= x, turned_i32, lowest_i32))
        values.append(best_i32)
        places.append(ops.to(0, "int32") - at_i32)
        found = [ops.where(turned_i32 <= at_i32, lowest_i32, part) for part in (x, turned_i32)]
        kept = [ops.where(at_i32 <= turned_i32, new, old) for new, old in zip(found, (x, turned_i32), strict=True)]
        x, turned_i32 = ops.keep(kept)
    return values + places


def attention_weights(
    ops: Any, score: Array, valid: Array | None, table: Array, multiplier: Array, shift: Array
) -> Array:
    """Unnormalized softmax of int32 scores over the last axis: uint16, 0 where ``valid`` is false (None: nowhere).

    ``delta = clamp(rescale(max - score, multiplier, shift), 0, 255)``, the maximum being that of the valid places, and
    ``e = table[delta]``; ``multiplier * 2**-shift`` is the scale of the scores over that of the table's input.  At
    least one place is valid, so the sum of the result is at least ``table[0] = 65535``.  ``convert`` proves that the
    difference of any two scores fits int32.
    """
    lowest_i32 = ops.to(INT32_MIN, "int32")
    highest_i32 = ops.row_max(score if valid is None else ops.where(valid, score, lowest_i32))
    # Padding may hold a score above the maximum; clamped to 0 it indexes the table, and is masked.
    distance_i64 = rescale(ops, highest_i32 - score, multiplier, shift)
    delta_i32 = ops.to(ops.clip(distance_i64, 0, EXP_ENTRIES - 1), "int32")
    e_i32 = ops.to(ops.take(table, delta_i32), "int32")
    return ops.to(e_i32 if valid is None else ops.where(valid, e_i32, ops.to(0, "int32")), "uint16")


def attention_context(
    ops: Any,
    weights: Array,
    values: Array,
    zero_point_values: int,
    multiplier: Array,
    shift: Array,
    zero_point: int,
    low: int,
    high: int,
    dtype: str,
) -> Array:
    """``sum(e_t v'_t) / sum(e_t)``, requantized.

    weights uint16 ``[..., 1, places]``, values int8 ``[..., size, places]`` -> ``[..., size, 1]``.
    """
    e_i64 = ops.to(weights, "int64")
    centred_i64 = ops.to(values, "int64") - ops.to(zero_point_values, "int64")
    sums_i64, total_i64 = ops.row_sum(e_i64 * centred_i64), ops.row_sum(e_i64)
    return weighted_mean(ops, sums_i64, total_i64, multiplier, shift, zero_point, low, high, dtype)


def weighted_mean(
    ops: Any,
    sums: Array,
    total: Array,
    multiplier: Array,
    shift: Array,
    zero_point: int,
    low: int,
    high: int,
    dtype: str,
) -> Array:
    """``sums / total``, requantized: what attention makes of ``sum(e_t v'_t)`` and ``sum(e_t)``, both int64.

    One reciprocal ``R = 2**48 // total`` serves all elements; the mean is ``(sums R + 2**31) >> 32``.
    """
    reciprocal_i64 = ops.floor_div(
        ops.to(1 << ATTENTION_RECIPROCAL_BITS, "int64"), ops.clip(total, 1, 1 << ATTENTION_RECIPROCAL_BITS)
    )
    drop = ATTENTION_RECIPROCAL_BITS - ATTENTION_FRACTION_BITS
    mean_i64 = (sums * reciprocal_i64 + ops.to(1 << (drop - 1), "int64")) >> ops.to(drop, "int64")
    return requantize(ops, [(ops.to(mean_i64, "int32"), multiplier, shift)], zero_point, low, high, dtype)
