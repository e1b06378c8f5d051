"""The norms of ``fixed_point`` against their contract in unbounded integers, and their error, on both namespaces."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irnn.arithmetic import fixed_point as fp
from tests.support.exact import assert_integers, both, clamp, exact_rescale, half_up, hard_rows, on
from tests.support.strategies import biased_integers, multipliers, norm_rows, quick

NORM_LENGTHS = st.one_of(st.sampled_from([1, 2, 3, 5, 300]), st.integers(1, 64))
LONG_LENGTHS = st.sampled_from([1500, 2047, 2048])
IDENTITY = {"multiplier": np.int32([1 << 30]), "shift": np.int32([30])}


def run_norm(ops: Any, function: str, x: np.ndarray, gamma: Any, beta: Any, multiplier: Any, shift: Any) -> Any:
    n = x.shape[-1]
    tensors = (on(ops, t) for t in (gamma, beta, multiplier, shift))
    return getattr(fp, function)(ops, on(ops, x), n, *tensors, -32768, 32767, "int16")


def normalized(ops: Any, function: str, x: np.ndarray) -> Any:
    """The clamped 10-bit fraction t itself: gamma 1, beta 0, factor 1."""
    n = x.shape[-1]
    return run_norm(ops, function, x, np.ones(n, "int16"), np.zeros(n, "int32"), **IDENTITY)


def exact_t(function: str, row: list[int]) -> list[int]:
    """t of the contract, unclamped: every division a floor of Python integers, every rounding half up."""
    n, total = len(row), sum(row)
    u = [n * v - total for v in row]
    if not any(u):
        return [0] * n
    if function == "mad_norm":
        reciprocal, drop = n * 2**48 // sum(map(abs, u)), 38
    else:
        root = math.isqrt((n * sum(v * v for v in row) - total * total) * 2**10)
        reciprocal, drop = 2**59 // root, 44
    return [half_up(Fraction(v * reciprocal, 2**drop)) for v in u]


def exact_norm(function: str, row: list[int], gamma: Any, beta: Any, multiplier: Any, shift: Any) -> list[int]:
    acc = [clamp(t, -32768, 32767) * int(gamma[k]) + int(beta[k]) for k, t in enumerate(exact_t(function, row))]
    return [clamp(exact_rescale(a, multiplier[0], shift[0]), -32768, 32767) for a in acc]


@both
@pytest.mark.parametrize("function", ["mad_norm", "layer_norm"])
@quick
@given(data=st.data())
def test_norms_follow_the_contract(ops: Any, function: str, data: st.DataObject) -> None:
    x = data.draw(norm_rows(NORM_LENGTHS))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    gamma = rng.integers(-32767, 32767, x.shape[-1], endpoint=True).astype("int16")
    gamma[0] = data.draw(biased_integers(-32767, 32767))
    beta = rng.integers(-(1 << 30), 1 << 30, x.shape[-1], endpoint=True).astype("int32")
    beta[0] = data.draw(biased_integers(-(1 << 30), 1 << 30))
    affine = {
        "gamma": gamma,
        "beta": beta,
        "multiplier": np.int32([data.draw(multipliers)]),
        "shift": np.int32([data.draw(st.integers(30, 62))]),
    }
    expected = [exact_norm(function, row, **affine) for row in x.tolist()]
    assert_integers(run_norm(ops, function, x, **affine), expected, "int16")


@both
@pytest.mark.parametrize("function", ["mad_norm", "layer_norm"])
@pytest.mark.parametrize("length", [1, 2, 7, 1500, 2048])
def test_norms_of_equal_elements_are_beta(ops: Any, function: str, length: int) -> None:
    x = np.repeat(np.array([[-32768], [-1], [0], [32767]], "int16"), length, axis=1)
    with np.errstate(all="raise"):
        assert_integers(normalized(ops, function, x), np.zeros(x.shape, int).tolist(), "int16")
    beta = np.full(length, -1234, "int32")
    gamma = np.full(length, 32767, "int16")
    actual = run_norm(ops, function, x, gamma, beta, **IDENTITY)
    assert_integers(actual, np.full(x.shape, -1234).tolist(), "int16")


@both
@pytest.mark.parametrize("function", ["mad_norm", "layer_norm"])
@pytest.mark.parametrize("length", [2, 3, 64, 65, 1500, 2047, 2048])
def test_norms_of_spikes_and_two_valued_rows(ops: Any, function: str, length: int) -> None:
    """The largest |u|, d and S there are, and normalized values far beyond int16 (a spike has t = 2**9 N)."""
    rows = hard_rows(length)
    expected = [[clamp(t, -32768, 32767) for t in exact_t(function, row)] for row in rows]
    assert_integers(normalized(ops, function, np.array(rows, "int16")), expected, "int16")
    if function == "mad_norm" and length > 64:
        assert expected[0][0] == 32767


def mad_error(row: list[int], t: list[int]) -> Fraction:
    """Largest error of t in its own steps against exact fractions, saturated elements apart."""
    n, total = len(row), sum(row)
    deviation = sum(abs(n * v - total) for v in row)
    if not deviation:
        return Fraction(max(map(abs, t)))
    exact = (Fraction((n * v - total) * n * 1024, deviation) for v in row)
    return max((abs(e - a) for e, a in zip(exact, t, strict=True) if -32768 <= e <= 32767), default=Fraction(0))


@both
@quick
@given(x=norm_rows(st.one_of(NORM_LENGTHS, LONG_LENGTHS)))
def test_mad_norm_error_is_half_a_step(ops: Any, x: np.ndarray) -> None:
    """Half a step from the one rounding; the floored reciprocal adds |u| / 2**38 < 2**-11 of a step, and no more."""
    for row, t in zip(x.tolist(), normalized(ops, "mad_norm", x).tolist(), strict=True):
        assert mad_error(row, t) <= Fraction(1, 2) + Fraction(1, 2**11)


@both
@quick
@given(x=norm_rows(st.one_of(NORM_LENGTHS, LONG_LENGTHS)))
def test_layer_norm_error_bound(ops: Any, x: np.ndarray) -> None:
    """The floored root makes |t| too large by a factor below 1 + 1 / root; beside it there is half a step, rounded."""
    for row, t_row in zip(x.tolist(), normalized(ops, "layer_norm", x).tolist(), strict=True):
        n, total = len(row), sum(row)
        spread = n * sum(v * v for v in row) - total * total
        if not spread:
            assert set(t_row) == {0}
            continue
        root = math.isqrt(spread << 10)
        slack = Fraction(1, 2) + Fraction(1, 2**16)
        # Exact bounds on 2**10 / sqrt(spread), by an integer root with 80 more bits.
        fine = math.isqrt(spread << 200)
        low, high = Fraction(1 << 110, fine + 1), Fraction(1 << 110, fine)
        for v, t in zip(row, t_row, strict=True):
            u = abs(n * v - total)
            if u * high * (1 + Fraction(1, root)) > 32767:
                continue
            magnitude = t if n * v > total else -t
            assert u * low - slack <= magnitude <= u * high * (1 + Fraction(1, root)) + slack
