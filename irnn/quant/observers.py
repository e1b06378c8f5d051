"""What an observer takes for the range of a batch."""

from __future__ import annotations

import torch
from torch import Tensor


def percentiles(rows: Tensor, percent: float) -> tuple[Tensor, Tensor]:
    """(low, high), each ``[groups]``, of ``rows [count, groups, size]``: the percentile and its mirror image."""
    flat = rows.transpose(0, 1).reshape(rows.shape[1], -1)
    high, low = (sign * _percentile(sign * flat, percent) for sign in (1, -1))
    return low, high


def _percentile(rows: Tensor, percent: float) -> Tensor:
    """The percentile of each row ``[groups, count]``, between the two sorted values beside it."""
    place = (rows.shape[1] - 1) * percent / 100
    below = int(place)
    first, second = (rows.kthvalue(min(k, rows.shape[1] - 1) + 1, dim=1).values for k in (below, below + 1))
    return torch.lerp(first, second, place - below)
