"""What tests of ``fixed_point`` compare with: exact fractions, operands at their limits, rows that norms find hard."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from irnn.arithmetic.numpy_ops import NUMPY
from irnn.arithmetic.torch_ops import TORCH

both = pytest.mark.parametrize("ops", [NUMPY, TORCH], ids=["numpy", "torch"])
EXTREME_SHIFTS = (1, 2, 30, 31, 61, 62)
EXTREME_MULTIPLIERS = (1 << 30, (1 << 30) + 1, (1 << 31) - 1)
EXTREME_INT32 = (-(1 << 31), -(1 << 31) + 1, -3, -1, 0, 1, 3, (1 << 31) - 2, (1 << 31) - 1)


def half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def clamp(value: int, low: int, high: int) -> int:
    return low if value < low else high if value > high else value


def on(ops: Any, x: Any) -> Any:
    """``x`` as an array of the namespace."""
    return torch.from_numpy(np.ascontiguousarray(x)) if ops is TORCH else x


def assert_integers(actual: Any, expected: Any, dtype: str) -> None:
    """``actual`` has this dtype and these values (``expected``: nested lists of Python integers)."""
    assert str(actual.dtype).removeprefix("torch.") == dtype
    np.testing.assert_array_equal(np.asarray(actual), np.array(expected, dtype=dtype), strict=True)


def exact_rescale(x: int, multiplier: int, shift: int) -> int:
    return half_up(Fraction(int(x) * int(multiplier), 1 << int(shift)))


def spike(length: int, at: int, base: int = 0) -> list[int]:
    return [at, *[base] * (length - 1)]


def hard_rows(length: int) -> list[list[int]]:
    half = length // 2
    return [
        spike(length, 1),
        spike(length, -1),
        spike(length, 32767, -32768),
        spike(length, -32768, 32767),
        [-32768] * half + [32767] * (length - half),
        [32767] * half + [-32768] * (length - half),
        [k - half for k in range(length)],
    ]
