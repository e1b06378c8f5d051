"""Bounds claimed in the docstrings of ``fixed_point``, proved by running the text itself with overflow checks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from irnn.arithmetic import fixed_point as fp
from tests.support.checked_ops import CheckedOps
from tests.support.exact import EXTREME_INT32, EXTREME_MULTIPLIERS, clamp, hard_rows, spike


def test_rescale_intermediates_fit_int64() -> None:
    ops = CheckedOps()
    x = ops.to(np.array(EXTREME_INT32), "int32")
    for multiplier in EXTREME_MULTIPLIERS:
        for shift in range(fp.SHIFT_MIN, fp.SHIFT_MAX + 1):
            fp.rescale(ops, x, ops.to([multiplier], "int32"), ops.to([shift], "int32"))
    assert ops.largest["*"] < 2**62
    assert ops.largest["<<"] <= 2**61


def test_requantize_of_three_largest_terms_fits_int64() -> None:
    for x in (fp.INT32_MIN, fp.INT32_MAX):
        ops = CheckedOps()
        term = (ops.to([x], "int32"), ops.to([fp.MULTIPLIER_MAX], "int32"), ops.to([1], "int32"))
        fp.requantize(ops, [term] * 3, 127, -128, 127, "int8")


def test_multiply_and_add_intermediates() -> None:
    ops = CheckedOps()
    a, b = ops.to([-128, 127, 127, -128], "int8"), ops.to([-32768, -32768, 32767, 32767], "int16")
    fp.multiply(ops, a, b, -128, 0)
    assert ops.largest["*"] <= 255 * 32768 < 2**23
    fp.multiply(ops, b, b, 0, 0)
    fp.add(ops, b, b, -32768, 32767, "int16")


@pytest.mark.parametrize("slope", [-(1 << 31), (1 << 31) - 1])
@pytest.mark.parametrize("intercept", [-(1 << 31), (1 << 31) - 1])
@pytest.mark.parametrize("shift", [8, 24])
def test_pwl_intermediates(slope: int, intercept: int, shift: int) -> None:
    ops = CheckedOps()
    table = (np.array([v], "int32") for v in (-32768, slope, intercept))
    fp.pwl(ops, ops.to([-32768, 0, 32767], "int16"), *table, shift, -128, 127, "int8")
    assert ops.largest["*"] < 2**48


@pytest.mark.parametrize("length", [1, 2, 3, 1500, 2047, 2048])
@pytest.mark.parametrize("function", ["mad_norm", "layer_norm"])
def test_norm_intermediates(function: str, length: int) -> None:
    """At the longest rows and largest spreads; gamma in +-32767 with |beta| = 2**30 just stays in int32."""
    for sign in (1, -1):
        ops = CheckedOps()
        for row in hard_rows(length):
            gamma, beta = ops.to([sign * 32767] * length, "int16"), ops.to([sign << 30] * length, "int32")
            factor = ops.to([fp.MULTIPLIER_MAX], "int32"), ops.to([62], "int32")
            x = ops.to([clamp(v, -32768, 32767) for v in row], "int16")
            getattr(fp, function)(ops, x, length, gamma, beta, *factor, -32768, 32767, "int16")
        # The products u R and those of the last rescale.
        assert ops.largest["*"] < 2**62


@pytest.mark.parametrize("length", [2, 3, 1500, 2048])
def test_reciprocal_products_stay_below_2_to_the_60(length: int) -> None:
    """|u R| <= N << 48 in MadNorm; |u R| <= sqrt(N) 2**54 (1 + 1 / root) in LayerNorm."""
    for row in hard_rows(length):
        n, total = length, sum(row)
        u = max(abs(n * v - total) for v in row)
        mean_deviation = sum(abs(n * v - total) for v in row)
        assert u * ((n << fp.RECIPROCAL_BITS) // mean_deviation) <= n << fp.RECIPROCAL_BITS <= 2**59
        spread = n * sum(v * v for v in row) - total**2
        assert spread << 2 * fp.ROOT_FRACTION_BITS <= 2**62
        assert u * ((1 << fp.ROOT_RECIPROCAL_BITS) // math.isqrt(spread << 10)) <= 45.3 * 2**54 < 2**60


def test_checked_namespace_refuses_what_it_should() -> None:
    """The proofs above are worth what their checker is: it must see an overflow and a promotion."""
    ops = CheckedOps()
    with pytest.raises(OverflowError):
        ops.to([1 << 62], "int64") * ops.to([2], "int64")
    with pytest.raises(OverflowError):
        ops.to([128], "int8")
    with pytest.raises(TypeError):
        ops.to([1], "int32") + ops.to([1], "int64")
    x, gamma, beta = ops.to(spike(2048, -1), "int16"), ops.to([-32768] * 2048, "int16"), ops.to([1 << 30], "int32")
    with pytest.raises(OverflowError):
        fp.mad_norm(ops, x, 2048, gamma, beta, ops.to([1 << 30], "int32"), ops.to([30], "int32"), 0, 1, "int16")
