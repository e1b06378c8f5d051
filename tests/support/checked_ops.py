"""An operations namespace that computes with Python integers and refuses every overflow.

Running the text of ``fixed_point`` through it at the extremes of its operands proves the widths that its
docstrings claim: a sum, product, shift or conversion that leaves its dtype raises, and so does an operation between
different dtypes (the compiler's namespace has no implicit promotion).  ``largest`` records, per operator, the largest
magnitude seen, for claims tighter than the dtype.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

WIDTHS = {
    "int8": (-128, 127),
    "uint16": (0, 65535),
    "int16": (-32768, 32767),
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
}


class CheckedArray:
    """Python integers in an object array, with the dtype that they claim to fit."""

    def __init__(self, values: Any, dtype: str, ops: CheckedOps, operator: str) -> None:
        self.values = np.asarray(values, dtype=object)
        self.dtype = dtype
        self.ops = ops
        self.shape = self.values.shape
        largest, smallest = max(self.values.flat), min(self.values.flat)
        low, high = WIDTHS[dtype]
        if smallest < low or largest > high:
            raise OverflowError(f"{operator} gives {smallest}..{largest}, which does not fit {dtype}")
        ops.largest[operator] = max(ops.largest.get(operator, 0), largest, -smallest)

    def _with(self, other: CheckedArray, values: Any, operator: str) -> CheckedArray:
        if not isinstance(other, CheckedArray) or other.dtype != self.dtype:
            raise TypeError(f"{operator} of {self.dtype} and {getattr(other, 'dtype', type(other))}")
        return CheckedArray(values, self.dtype, self.ops, operator)

    def __add__(self, other: CheckedArray) -> CheckedArray:
        return self._with(other, self.values + other.values, "+")

    def __sub__(self, other: CheckedArray) -> CheckedArray:
        return self._with(other, self.values - other.values, "-")

    def __mul__(self, other: CheckedArray) -> CheckedArray:
        return self._with(other, self.values * other.values, "*")

    def __lshift__(self, other: CheckedArray) -> CheckedArray:
        return self._with(other, self.values << other.values, "<<")

    def __rshift__(self, other: CheckedArray) -> CheckedArray:
        if min(np.asarray(other.values).flat) < 0:
            raise OverflowError("negative shift")
        return self._with(other, self.values >> other.values, ">>")


class CheckedOps:
    """The namespace; make a new one for each claim."""

    def __init__(self) -> None:
        self.largest: dict[str, int] = {}

    def _like(self, x: CheckedArray, values: Any, operator: str) -> CheckedArray:
        return CheckedArray(values, x.dtype, self, operator)

    def to(self, x: Any, dtype: str) -> CheckedArray:
        values = x.values if isinstance(x, CheckedArray) else np.array(np.asarray(x).tolist(), dtype=object)
        return CheckedArray(values, dtype, self, "to")

    def clip(self, x: CheckedArray, low: int, high: int) -> CheckedArray:
        return self._like(x, np.minimum(np.maximum(x.values, low), high), "clip")

    def take(self, table: np.ndarray, index: CheckedArray) -> CheckedArray:
        if min(index.values.flat) < 0:
            raise IndexError("negative index")
        return self.to(np.asarray(table)[index.values.astype(np.int64)], str(np.asarray(table).dtype))

    def abs(self, x: CheckedArray) -> CheckedArray:
        return self._like(x, np.abs(x.values), "abs")

    def row_sum(self, x: CheckedArray) -> CheckedArray:
        # Whatever the order of summation, no partial sum is larger than the sum of magnitudes.
        self._like(x, np.abs(x.values).sum(-1, keepdims=True), "row_sum")
        return self._like(x, x.values.sum(-1, keepdims=True), "row_sum")

    def floor_div(self, a: CheckedArray, b: CheckedArray) -> CheckedArray:
        if min(b.values.flat) <= 0:
            raise ArithmeticError("floor_div takes b > 0")
        return self._like(a, a.values // b.values, "floor_div")

    def isqrt(self, x: CheckedArray) -> CheckedArray:
        return self._like(x, np.frompyfunc(math.isqrt, 1, 1)(x.values), "isqrt")

    def count_le(self, table: np.ndarray, x: CheckedArray) -> CheckedArray:
        count = (np.array(np.asarray(table).tolist(), dtype=object) <= np.asarray(x.values)[..., None]).sum(-1)
        return CheckedArray(count, "int32", self, "count_le")
