"""The operations that ``fixed_point`` needs, for NumPy (the golden reference) and PyTorch (QAT evaluation).

Beside those, ``constant``, ``weight``, ``matmul``, ``stack``, ``concat``, ``valid`` and ``pad`` serve
``irnn.program.interpreter``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch


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
    def isqrt(x: np.ndarray) -> np.ndarray:
        return np.vectorize(math.isqrt, otypes=[np.int64])(x)

    @staticmethod
    def count_le(table: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.searchsorted(table, x, side="right").astype(np.int32)

    @staticmethod
    def constant(x: Any, device: Any = None) -> np.ndarray:
        return np.asarray(x)

    @staticmethod
    def weight(data: np.ndarray, device: Any = None) -> np.ndarray:
        """An int8 matrix ``[rows, columns]`` made ready for :meth:`matmul`, once."""
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
    def pad(x: np.ndarray, axis: int, before: int, after: int, value: int) -> np.ndarray:
        """``x`` with ``value`` around it along one axis."""
        widths = [(0, 0)] * x.ndim
        widths[axis] = (before, after)
        return np.pad(x, widths, constant_values=value)


class TorchOps:
    """PyTorch integers, on whatever device the operands are."""

    @staticmethod
    def to(x: Any, dtype: str) -> torch.Tensor:
        return torch.as_tensor(x).to(getattr(torch, dtype))

    where = staticmethod(torch.where)
    abs = staticmethod(torch.abs)

    @staticmethod
    def clip(x: torch.Tensor, low: int, high: int) -> torch.Tensor:
        return torch.clamp(x, low, high)

    @staticmethod
    def take(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return table[index.long()]

    @staticmethod
    def row_sum(x: torch.Tensor) -> torch.Tensor:
        return x.sum(dim=-1, keepdim=True, dtype=x.dtype)

    @staticmethod
    def row_max(x: torch.Tensor) -> torch.Tensor:
        return x.amax(dim=-1, keepdim=True)

    @staticmethod
    def floor_div(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.div(a, b, rounding_mode="floor")

    @staticmethod
    def isqrt(x: torch.Tensor) -> torch.Tensor:
        # The float64 root of an int64 is off by at most one: mend it with integers.
        root = x.double().sqrt().long()
        root = torch.where(root * root > x, root - 1, root)
        return torch.where((root + 1) * (root + 1) <= x, root + 1, root)

    @staticmethod
    def count_le(table: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.searchsorted(table, x.to(table.dtype).contiguous(), right=True).to(torch.int32)

    @staticmethod
    def constant(x: Any, device: Any = None) -> torch.Tensor:
        return torch.as_tensor(x, device=device)

    @staticmethod
    def weight(data: np.ndarray, device: Any = None) -> torch.Tensor:
        """An int8 matrix ``[rows, columns]`` made ready for :meth:`matmul`: float where that is proved exact.

        Integers up to 2**24 are exact in float32 and up to 2**53 in float64, in whatever order they are summed; no
        partial sum exceeds the largest row's sum of magnitudes times 128.
        """
        bound = int(np.abs(data.astype(np.int64)).sum(-1).max()) * 128
        return torch.as_tensor(data, device=device).to(torch.float32 if bound < 1 << 24 else torch.float64)

    @staticmethod
    def matmul(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """``x @ weight.T`` in int32.  Autocast would round the operands to 8 bits of mantissa, so it is off here."""
        with torch.autocast(x.device.type, enabled=False):
            return torch.matmul(x.to(weight.dtype), weight.T).to(torch.int32)

    @staticmethod
    def stack(steps: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(steps, dim=1)

    @staticmethod
    def concat(parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat(parts, dim=-1)

    @staticmethod
    def valid(lengths: torch.Tensor, count: int) -> torch.Tensor:
        """bool ``[batch, count]``: the places before each length."""
        return torch.arange(count, device=lengths.device) < lengths[:, None]

    @staticmethod
    def pad(x: torch.Tensor, axis: int, before: int, after: int, value: int) -> torch.Tensor:
        """``x`` with ``value`` around it along one axis."""
        widths = [0, 0] * (x.dim() - axis - 1) + [before, after]
        return torch.nn.functional.pad(x, widths, value=value)


NUMPY = NumpyOps()
TORCH = TorchOps()
