"""Uniform weights of 2 to 8 bits: symmetric, one scale a row or one for the matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# A row of weights is never scaled more finely than 2**-16 of its tensor's largest: rows at or near zero exist, and a
# finer scale would push their bias and multiplier out of range for a contribution that nobody could measure.
ROW_SCALE_FLOOR = 2.0**-16


def weight_scale(weight: Tensor, bits: int, per_row: bool) -> Tensor:
    """Symmetric scale(s) of a weight matrix ``[rows, columns]``: ``[rows, 1]`` or ``[1, 1]``."""
    high = 2 ** (bits - 1) - 1
    largest = weight.detach().abs().amax()
    if per_row:
        rows = weight.detach().abs().amax(dim=1, keepdim=True)
        scale = torch.maximum(rows, largest * ROW_SCALE_FLOOR) / high
    else:
        scale = (largest / high).reshape(1, 1)
    return torch.where(scale > 0, scale, torch.ones_like(scale))


class FakeQuantizeWeight(torch.autograd.Function):
    """The same for symmetric weights: the range holds every weight, so the gradient passes unchanged."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor, high: int) -> Tensor:
        return weight.div(scale).add_(0.5).floor_().clamp_(-high, high).mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient, None, None
