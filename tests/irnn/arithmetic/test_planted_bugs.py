"""Are the tests awake?  One bug at a time is planted in a copy of the arithmetic, and the oracle must notice each.

"Noticed" means that some small fixed program gives other integers than the oracle, or does not run (a division by zero,
an index out of range).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from irnn.program import Program
from tests.support.planting import Mutation, arithmetic, namespace, operation, planted, walk
from tests.support.sharp_programs import Case, cases

# Source strings that several mutations replace.
ROUND = "return (product_i64 + half_i64) >> shift_i64"
PRODUCT = 'product_i64 = ops.to(x, "int64") * ops.to(multiplier, "int64")'
ZERO_POINT = 'total_i64 + ops.to(zero_point, "int64")'
PIECE = 'piece = ops.count_le(knots, x) - ops.to(1, "int32")'
SLOPED = 'distance_i64 * ops.to(ops.take(slopes, piece), "int64")'
CLAMPED_T = 'ops.to(ops.clip(t_i64, -32768, 32767), "int32")'
MAD_RECIPROCAL = 'ops.floor_div(ops.to(length << RECIPROCAL_BITS, "int64"), ops.clip(d_i64, 1, 1 << 62))'
SPREAD = "n_i64 * ops.row_sum(x_i64 * x_i64) - sum_i64 * sum_i64"
MATMUL = 'np.einsum("...k,nk->...n", x.astype(np.int32), weight)'
MUTATIONS = [
    # rescale
    arithmetic("truncation instead of rounding", ROUND, "return product_i64 >> shift_i64"),
    arithmetic(
        "half to even",
        ROUND,
        "y = (product_i64 + half_i64) >> shift_i64; tie = (product_i64 & (2 * half_i64 - 1)) == half_i64;"
        " return y - (tie & (y % 2 != 0))",
    ),
    arithmetic("half away from zero", ROUND, "return (product_i64 + half_i64 - (product_i64 < 0)) >> shift_i64"),
    arithmetic("half down", ROUND, "return (product_i64 + half_i64 - 1) >> shift_i64"),
    arithmetic(
        "rounding constant twice too large", 'ops.to(1, "int64") << (shift_i64 - ops.to(1, "int64"))', "1 << shift_i64"
    ),
    arithmetic(
        "rounding towards zero", ROUND, "return ((abs(product_i64) + half_i64) >> shift_i64) * np.sign(product_i64)"
    ),
    arithmetic(
        "rounded twice: the high half of a doubled product first",
        ROUND,
        "high = (product_i64 + (1 << 30)) >> 31; rest = np.maximum(shift_i64 - 31, 0);"
        " return (high + ((1 << rest) >> 1)) >> rest",
    ),
    arithmetic(
        "32-bit product", PRODUCT, 'product_i64 = ops.to(ops.to(x, "int32") * ops.to(multiplier, "int32"), "int64")'
    ),
    arithmetic("float product", PRODUCT, 'product_i64 = ops.to(np.float32(x) * np.float32(multiplier), "int64")'),
    arithmetic(
        "multiplier of 24 bits", PRODUCT, 'product_i64 = ops.to(x, "int64") * (ops.to(multiplier, "int64") >> 7 << 7)'
    ),
    arithmetic("shift one too far", "+ half_i64) >> shift_i64", "+ half_i64) >> (shift_i64 + 1)"),
    # saturate, requantize, add, multiply
    arithmetic(
        "saturates one too low",
        "return ops.to(ops.clip(x, low, high), dtype)",
        "return ops.to(ops.clip(x, low, high - 1), dtype)",
    ),
    arithmetic(
        "saturates one too high",
        "return ops.to(ops.clip(x, low, high), dtype)",
        "return ops.to(ops.clip(x, low + 1, high), dtype)",
    ),
    arithmetic(
        "wraps instead of saturating", "return ops.to(ops.clip(x, low, high), dtype)", "return ops.to(x, dtype)"
    ),
    arithmetic("zero point not added", ZERO_POINT, "total_i64"),
    arithmetic("zero point taken off", ZERO_POINT, 'total_i64 - ops.to(zero_point, "int64")'),
    arithmetic("second term left out", "for term in terms[1:]:", "for term in terms[2:]:"),
    arithmetic(
        "each term saturates before the sum",
        "total_i64 = total_i64 + rescale(ops, *term)",
        "total_i64 = ops.clip(total_i64, low, high) + ops.clip(rescale(ops, *term), low, high)",
    ),
    arithmetic("16-bit sum of the gates", 'ops.to(a, "int32") + ops.to(b, "int32")', "a + b"),
    arithmetic(
        "zero point of a gate not taken off", 'ops.to(a, "int32") - ops.to(zero_point_a, "int32")', 'ops.to(a, "int32")'
    ),
    arithmetic(
        "8-bit gate minus its zero point wraps",
        'ops.to(a, "int32") - ops.to(zero_point_a, "int32")',
        "(a - np.int8(zero_point_a)).astype(np.int32)",
    ),
    arithmetic(
        "16-bit product of gate and cell",
        "return a_i32 * b_i32",
        "return (a_i32 * b_i32).astype(np.int16).astype(np.int32)",
    ),
    # pwl
    arithmetic("piece one too low", PIECE, "piece = ops.clip(ops.count_le(knots, x) - 2, 0, 99)"),
    arithmetic("piece one too high", PIECE, "piece = ops.clip(ops.count_le(knots, x), 0, len(knots) - 1)"),
    arithmetic("piece index off by one, unguarded", PIECE, "piece = ops.count_le(knots, x)"),
    arithmetic("distance from 0, not from the knot", ' - ops.to(ops.take(knots, piece), "int64")', ""),
    arithmetic(
        "16-bit distance from the knot",
        f"y_i64 = {SLOPED}",
        f"distance_i64 = distance_i64.astype(np.int16).astype(np.int64); y_i64 = {SLOPED}",
    ),
    arithmetic("32-bit piecewise-linear product", SLOPED, f"({SLOPED}).astype(np.int32).astype(np.int64)"),
    arithmetic("no rounding of a piecewise-linear value", "(y_i64 + half_i64) >>", "y_i64 >>"),
    arithmetic(
        "a whole step added before the shift", "half_i64 = ops.to(1 << (shift - 1)", "half_i64 = ops.to(1 << shift"
    ),
    arithmetic(
        "whole-step intercepts",
        'ops.to(ops.take(intercepts, piece), "int64")',
        "(ops.take(intercepts, piece).astype(np.int64) >> shift << shift)",
    ),
    arithmetic("intercept of the first piece", "ops.take(intercepts, piece)", "ops.take(intercepts, 0 * piece)"),
    # norms
    arithmetic("normalized value wraps", CLAMPED_T, "t_i64.astype(np.int16).astype(np.int32)"),
    arithmetic("normalized value not clamped", CLAMPED_T, 'ops.to(t_i64, "int32")'),
    arithmetic("normalized value saturates one too low", CLAMPED_T, 'ops.to(ops.clip(t_i64, -32767, 32766), "int32")'),
    arithmetic("beta left out", ' + ops.to(beta, "int32")', ""),
    arithmetic("gamma left out", 'ops.to(gamma, "int32") * t_i32', "t_i32"),
    arithmetic("reciprocal of MadNorm one bit short", "\nRECIPROCAL_BITS = 48\n", "\nRECIPROCAL_BITS = 47\n"),
    arithmetic("reciprocal of MadNorm halved", MAD_RECIPROCAL, f"({MAD_RECIPROCAL} >> 1)"),
    arithmetic("reciprocal of MadNorm one too large", MAD_RECIPROCAL, f"({MAD_RECIPROCAL} + 1)"),
    arithmetic(
        "reciprocal of MadNorm in single precision", MAD_RECIPROCAL, f"np.float32({MAD_RECIPROCAL}).astype(np.int64)"
    ),
    arithmetic("MadNorm divides by zero", "ops.clip(d_i64, 1, 1 << 62)", "d_i64"),
    arithmetic("mean not taken off in MadNorm", "u_i64 = x_i64 * n_i64 - ops.row_sum(x_i64)", "u_i64 = x_i64 * n_i64"),
    arithmetic("signed deviations summed", "ops.row_sum(ops.abs(u_i64))", "ops.row_sum(u_i64)"),
    arithmetic(
        "mean of integers rounded down first",
        "u_i64 = x_i64 * n_i64 - ops.row_sum(x_i64)",
        "u_i64 = (x_i64 - ops.row_sum(x_i64) // n_i64) * n_i64",
    ),
    arithmetic("one fractional bit of t less", "NORM_FRACTION_BITS = 10\n", "NORM_FRACTION_BITS = 9\n"),
    arithmetic("one fractional bit of the root less", "ROOT_FRACTION_BITS = 5\n", "ROOT_FRACTION_BITS = 4\n"),
    arithmetic("reciprocal of the root one bit short", "ROOT_RECIPROCAL_BITS = 59\n", "ROOT_RECIPROCAL_BITS = 58\n"),
    arithmetic("LayerNorm divides by zero", "ops.clip(root_i64, 1, 1 << 62)", "root_i64"),
    arithmetic("mean square instead of variance", SPREAD, "n_i64 * ops.row_sum(x_i64 * x_i64)"),
    arithmetic(
        "32-bit sum of squares", SPREAD, "n_i64 * ops.row_sum(x_i64 * x_i64).astype(np.int32) - sum_i64 * sum_i64"
    ),
    # the namespace
    namespace(
        "a knot belongs to the piece before it",
        'np.searchsorted(table, x, side="right")',
        'np.searchsorted(table, x, side="left")',
    ),
    namespace(
        "16-bit accumulator", MATMUL, "np.matmul(x.astype(np.int16), weight.T.astype(np.int16)).astype(np.int32)"
    ),
    namespace("8-bit accumulator", MATMUL, "np.matmul(x, weight.T.astype(np.int8)).astype(np.int32)"),
    namespace(
        "saturating pairs, as vpmaddubsw",
        MATMUL,
        "sum(np.clip((x[..., k : k + 2].astype(np.int32) + 128) @ weight.T[k : k + 2].astype(np.int32), -32768, 32767)"
        " for k in range(0, x.shape[-1], 2)) - 128 * weight.sum(1, dtype=np.int32)",
    ),
    namespace(
        "root rounded up", "np.vectorize(math.isqrt, otypes=[np.int64])(x)", "np.ceil(np.sqrt(x)).astype(np.int64)"
    ),
    namespace(
        "the whole tensor summed", "x.sum(axis=-1, keepdims=True, dtype=x.dtype)", "x.sum(keepdims=True, dtype=x.dtype)"
    ),
    # the interpreter's walk
    walk(
        "the backward direction runs forward",
        "for t in reversed(range(steps)) if scan.reverse else range(steps):",
        "for t in range(steps):",
    ),
    walk("backward outputs in the order of their making", "items[::-1] if scan.reverse else items", "items"),
    walk("state not carried on", "present.update(after)", "pass"),
    # the operations' evaluation
    operation("linear", "bias left out", ' + tensors["bias"]', ""),
    operation("norms", "one norm over all gates", 'groups = a["groups"]', "groups = 1"),
    operation(
        "requantize",
        "second factor is the first",
        '(x, tensors[f"multiplier_{k}"], tensors[f"shift_{k}"])',
        '(x, tensors["multiplier_0"], tensors["shift_0"])',
    ),
    operation(
        "slice",
        "slice one element late",
        'inputs[0][..., node.attributes["start"] : node.attributes["stop"]]',
        'np.roll(inputs[0], -1, -1)[..., node.attributes["start"] : node.attributes["stop"]]',
    ),
    walk(
        "initial state 0",
        "state = self.program.initial_state(batch)",
        "state = {k: 0 * v for k, v in self.program.initial_state(batch).items()}",
    ),
]


def agrees(make: Callable[[Program], Any], case: Case) -> bool:
    with np.errstate(all="raise"):
        output, last = make(case.program).run(case.inputs, case.state)
    same_states = all(np.array_equal(last[name], expected) for name, expected in case.last.items())
    return np.array_equal(output, case.output) and same_states


def test_the_unmutated_copy_agrees_everywhere() -> None:
    make = planted(None)
    assert all(agrees(make, case) for case in cases())


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_every_planted_bug_is_noticed(mutation: Mutation) -> None:
    make = planted(mutation)
    for case in cases():
        try:
            if not agrees(make, case):
                return
        except (ArithmeticError, IndexError, ValueError):
            return
    pytest.fail(f"nobody noticed: {mutation.what}")


def test_a_mutation_that_no_longer_fits_the_source_is_loud() -> None:
    with pytest.raises(AssertionError, match="occurs 0 times"):
        planted(arithmetic("gone", "no such line", ""))
