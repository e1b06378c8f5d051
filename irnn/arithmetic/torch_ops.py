"""The operations of ``numpy_ops`` on PyTorch integers: a quantization-aware model is evaluated with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


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
    def keep(arrays: list[torch.Tensor]) -> list[torch.Tensor]:
        return arrays

    @staticmethod
    def places(x: torch.Tensor) -> torch.Tensor:
        return torch.arange(x.shape[-1], dtype=torch.int32, device=x.device)

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
    def weight(data: np.ndarray, magnitude: int, device: Any = None) -> torch.Tensor:
        """An integer matrix ``[rows, columns]`` made ready for :meth:`matmul`: float where that is proved exact.

        Integers up to 2**24 are exact in float32 and up to 2**53 in float64, in whatever order they are summed; no
        partial sum exceeds the largest row's sum of magnitudes times ``magnitude``, the largest absolute value of what
        is multiplied.  Accumulators that ``check`` has proved stay below 2**31, so float64 always serves.
        """
        bound = int(np.abs(data.astype(np.int64)).sum(-1).max()) * magnitude
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
    def steps(sequence: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Step ``index[b]`` of each sequence: ``[batch, time, ...]`` -> ``[batch, ...]``."""
        return sequence[torch.arange(len(index), device=index.device), index.long()]

    @staticmethod
    def pad(x: torch.Tensor, axis: int, before: int, after: int, value: int) -> torch.Tensor:
        """``x`` with ``value`` around it along one axis."""
        widths = [0, 0] * (x.dim() - axis - 1) + [before, after]
        return torch.nn.functional.pad(x, widths, value=value)


TORCH = TorchOps()
