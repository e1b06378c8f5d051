"""Fake quantization: what training sees of integers.

Rounding is half up, ``floor(v + 1/2)``, as in ``irnn.arithmetic.fixed_point``, which is what runs on the device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def round_half_up(x: Tensor) -> Tensor:
    """``floor(x + 1/2)``."""
    return torch.floor(x + 0.5)


class FakeQuantize(torch.autograd.Function):
    """Quantize and dequantize; straight-through gradient inside the range, none outside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
        q = torch.addcdiv(zero_point + 0.5, x, scale).floor_()
        clipped = q.clamp(low, high)
        ctx.save_for_backward(q == clipped)
        # What is returned is a new tensor: compiled, one changed in place loses its gradient in PyTorch 2.11.
        return clipped.sub_(zero_point) * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None, None, None
