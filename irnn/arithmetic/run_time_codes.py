"""Codes that activations get at run time: a vector as a sum of binary codes with coefficients, in integers.

Part of the arithmetic of ``fixed_point``, by the same rules and over the same namespaces ``ops``.  Source: Xu et al.,
"Alternating Multi-bit Quantization for Recurrent Neural Networks", ICLR 2018; bounds in ``docs/arithmetic.md``.
"""

from __future__ import annotations

from typing import Any

from irnn.arithmetic.fixed_point import Array, saturate

# Multi-bit codes and their coefficients are found in turn so often, from the greedy ones on.
MULTIBIT_CYCLES = 2
# Of activations, at run time: see ``multibit``.
MULTIBIT_FRACTION_BITS = 4
MULTIBIT_COUNT_MAX, MULTIBIT_LENGTH_MAX = 4, 2048
MULTIBIT_COEFFICIENT_MAX = 32767
MULTIBIT_MAX = 255 << MULTIBIT_FRACTION_BITS


def multibit(ops: Any, x: Array, length: int, zero_point: int, count: int) -> Array:
    """``x [..., length]`` as a sum of ``count`` binary codes, int16 (Xu et al., ICLR 2018; ``docs/arithmetic.md``).

    x is int8, ``length`` N <= 2048, ``count`` k <= 4.  The result has MULTIBIT_FRACTION_BITS more bits than x and no
    zero point; |x - zero_point| <= 255, and it stays within +-MULTIBIT_MAX.
    """
    x_i32 = ops.to(x, "int32") - ops.to(zero_point, "int32")
    target_i32 = x_i32 << ops.to(MULTIBIT_FRACTION_BITS, "int32")
    beta, code_i32 = _greedy_codes(ops, target_i32, length, count)
    for _ in range(MULTIBIT_CYCLES):
        beta = _coefficients(ops, x_i32, length, code_i32, beta)
        code_i32 = _nearest_codes(ops, target_i32, beta)
    total_i32 = beta[0] * _sign(ops, code_i32, 0)
    for j in range(1, count):
        total_i32 = total_i32 + beta[j] * _sign(ops, code_i32, j)
    return saturate(ops, total_i32, -MULTIBIT_MAX, MULTIBIT_MAX, "int16")


def _greedy_codes(ops: Any, target: Array, length: int, count: int) -> tuple[list[Array], Array]:
    """(coefficients, codes as numbers ``sum_j 2**j [b_j = 1]``): each code is the sign of what is left."""
    zero_i32, rest_i32, code_i32 = ops.to(0, "int32"), target, ops.to(0, "int32")
    beta = []
    for j in range(count):
        # |rest| <= 4080 and N <= 2048: the sum stays below 2**24.
        twice_i32 = (ops.row_sum(ops.abs(rest_i32)) << ops.to(1, "int32")) + ops.to(length, "int32")
        beta.append(ops.floor_div(twice_i32, ops.to(2 * length, "int32")))
        positive = zero_i32 <= rest_i32
        code_i32 = code_i32 + ops.where(positive, ops.to(1 << j, "int32"), zero_i32)
        rest_i32, code_i32 = ops.keep([ops.where(positive, rest_i32 - beta[j], rest_i32 + beta[j]), code_i32])
    return beta, code_i32


def _coefficients(ops: Any, x: Array, length: int, code: Array, before: list[Array]) -> list[Array]:
    """Those of least squares for given codes, by Cramer's rule; ``before`` where the codes depend on each other."""
    count = len(before)
    signs = [_sign(ops, code, j) for j in range(count)]
    gram: list[list[Array]] = [[ops.to(length, "int64")] * count for _ in range(count)]
    for i in range(count):
        for j in range(i):
            gram[i][j] = gram[j][i] = ops.to(ops.row_sum(signs[i] * signs[j]), "int64")
    right = [ops.to(ops.row_sum(sign * x), "int64") for sign in signs]
    (whole_i64,) = ops.keep([determinant(gram)])
    divisor_i64 = ops.clip(whole_i64 + whole_i64, 1, 1 << 62)
    found = []
    for j in range(count):
        replaced = [[right[i] if k == j else gram[i][k] for k in range(count)] for i in range(count)]
        numerator_i64 = determinant(replaced) * ops.to(2 << MULTIBIT_FRACTION_BITS, "int64") + whole_i64
        solved_i64 = ops.floor_div(numerator_i64, divisor_i64)
        beta_i64 = ops.where(whole_i64 <= ops.to(0, "int64"), ops.to(before[j], "int64"), solved_i64)
        clipped_i64 = ops.clip(beta_i64, -MULTIBIT_COEFFICIENT_MAX, MULTIBIT_COEFFICIENT_MAX)
        found.append(ops.to(clipped_i64, "int32"))
    return ops.keep(found)


def _nearest_codes(ops: Any, target: Array, beta: list[Array]) -> Array:
    """The number of the code whose value is nearest to each element."""
    code_i32 = nearest_i32 = None
    for number in range(1 << len(beta)):
        value_i32 = None
        for j, b in enumerate(beta):
            part = b if number >> j & 1 else ops.to(0, "int32") - b
            value_i32 = part if value_i32 is None else value_i32 + part
        (value_i32,) = ops.keep([value_i32])
        # Twice the distance, one less where the value lies above: of two equally near the larger is the nearer.
        above_i32 = ops.where(value_i32 <= target, ops.to(0, "int32"), ops.to(1, "int32"))
        distance_i32 = (ops.abs(target - value_i32) << ops.to(1, "int32")) - above_i32
        if number == 0:
            code_i32, nearest_i32 = ops.to(0, "int32"), distance_i32
        else:
            nearer = distance_i32 <= nearest_i32
            code_i32 = ops.where(nearer, ops.to(number, "int32"), code_i32)
            nearest_i32 = ops.where(nearer, distance_i32, nearest_i32)
    (code_i32,) = ops.keep([code_i32])
    return code_i32


def _sign(ops: Any, code: Array, j: int) -> Array:
    """b_j of a code's number: 2 times its bit j, less 1."""
    higher_i32 = (code >> ops.to(j + 1, "int32")) << ops.to(1, "int32")
    bit_i32 = (code >> ops.to(j, "int32")) - higher_i32
    return (bit_i32 << ops.to(1, "int32")) - ops.to(1, "int32")


def determinant(matrix: list[list[Array]]) -> Array:
    """Of a square matrix of arrays, along its first row; no division."""
    first, *others = matrix
    if not others:
        return first[0]
    total = None
    for j, entry in enumerate(first):
        product = entry * determinant([row[:j] + row[j + 1 :] for row in others])
        total = product if total is None else total - product if j % 2 else total + product
    return total
