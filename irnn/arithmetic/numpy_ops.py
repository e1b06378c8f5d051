"""The operations that ``fixed_point`` needs, on NumPy integers: the golden reference.  Needs no PyTorch.

Beside those, ``constant``, ``weight``, ``matmul``, ``stack``, ``concat``, ``valid``, ``steps`` and ``pad`` serve the
operations of a program.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np


class NumpyOps:
    """NumPy integers; every intermediate has the width that its caller asked for."""

    @staticmethod
    def to(x: Any, dtype: str) -> np.ndarray:
        return np.asarray(x).astype(dtype)

    where = staticmethod(np.where)
    abs = staticmethod(np.abs)

    @staticmethod
    def clip(x: np.ndarray, low: int, high: int) -> np.ndarray:
        return np.minimum(np.maximum(x, low), high)

    @staticmethod
    def take(table: np.ndarray, index: np.ndarray) -> np.ndarray:
        return np.asarray(table)[index]

    @staticmethod
    def row_sum(x: np.ndarray) -> np.ndarray:
        return x.sum(axis=-1, keepdims=True, dtype=x.dtype)

    @staticmethod
    def row_max(x: np.ndarray) -> np.ndarray:
        return x.max(axis=-1, keepdims=True)

    @staticmethod
    def floor_div(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a // b

    @staticmethod
    def keep(arrays: list[np.ndarray]) -> list[np.ndarray]:
        return arrays

    @staticmethod
    def places(x: np.ndarray) -> np.ndarray:
        return np.arange(x.shape[-1], dtype=np.int32)

    @staticmethod
    def isqrt(x: np.ndarray) -> np.ndarray:
        return np.vectorize(math.isqrt, otypes=[np.int64])(x)

    @staticmethod
    def count_le(table: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.searchsorted(table, x, side="right").astype(np.int32)

    @staticmethod
    def constant(x: Any, device: Any = None) -> np.ndarray:
        return np.asarray(x)

    @staticmethod
    def weight(data: np.ndarray, magnitude: int, device: Any = None) -> np.ndarray:
        """An integer matrix ``[rows, columns]`` made ready for :meth:`matmul`, once.

        magnitude: the largest absolute value of what it multiplies.  int32 is exact for all that ``check`` has proved.
        """
        return data.astype(np.int32)

    @staticmethod
    def matmul(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """``x @ weight.T`` with int32 accumulators (einsum: twice as fast as NumPy's integer matmul)."""
        return np.einsum("...k,nk->...n", x.astype(np.int32), weight)

    @staticmethod
    def stack(steps: list[np.ndarray]) -> np.ndarray:
        return np.stack(steps, axis=1)

    @staticmethod
    def concat(parts: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(parts, axis=-1)

    @staticmethod
    def valid(lengths: np.ndarray, count: int) -> np.ndarray:
        """bool ``[batch, count]``: the places before each length."""
        return np.arange(count) < lengths[:, None]

    @staticmethod
    def steps(sequence: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Step ``index[b]`` of each sequence: ``[batch, time, ...]`` -> ``[batch, ...]``."""
        return sequence[np.arange(len(index)), index]

    @staticmethod
    def pad(x: np.ndarray, axis: int, before: int, after: int, value: int) -> np.ndarray:
        """``x`` with ``value`` around it along one axis."""
        widths = [(0, 0)] * x.ndim
        widths[axis] = (before, after)
        return np.pad(x, widths, constant_values=value)


NUMPY = NumpyOps()
