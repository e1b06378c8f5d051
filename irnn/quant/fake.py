"""Fake quantization: what training sees of integers.

Rounding is half up, ``floor(v + 1/2)``, as in ``irnn.arithmetic.fixed_point``, which is what runs on the device.

A step of a recurrent network is a chain of operations on small tensors, whose number decides how long training takes:
on a GPU nothing else does.  So what does not depend on x is computed once, in :class:`Grid`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


def round_half_up(x: Tensor) -> Tensor:
    """``floor(x + 1/2)``."""
    return torch.floor(x + 0.5)


class Grid(NamedTuple):
    """Integers ``low..high`` and the real numbers that they stand for; see :func:`grid`."""

    scale: Tensor
    zero_point: Tensor | None  # None: 0, of a symmetric grid
    rounding: Tensor  # the zero point and a half
    low: int
    high: int


def grid(scale: Tensor, zero_point: Tensor | None, low: int, high: int) -> Grid:
    """``scale (q - zero_point)`` for q in ``low..high``; the tensors broadcast over what is quantized."""
    rounding = torch.full_like(scale, 0.5) if zero_point is None else zero_point + 0.5
    return Grid(scale, zero_point, rounding, low, high)


class FakeQuantize(torch.autograd.Function):
    """Quantize and dequantize at a :class:`Grid`; straight-through gradient inside the range, none outside.

    kept: a list that takes the integers, as float32, or None.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        zero_point: Tensor | None,
        rounding: Tensor,
        low: int,
        high: int,
        kept: list[Tensor] | None,
    ) -> Tensor:
        unbounded = torch.addcdiv(rounding, x, scale).floor_()
        integers = unbounded.clamp(low, high)
        if kept is not None:
            kept.append(integers)
        ctx.save_for_backward(unbounded)
        ctx.low, ctx.high = low, high
        # What is returned is a new tensor: compiled, one changed in place loses its gradient in PyTorch 2.11.
        return (integers if zero_point is None else integers - zero_point) * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (unbounded,) = ctx.saved_tensors
        # In one operation: the gradient where `unbounded` lies between the integers beside the range, 0 elsewhere.
        inside = torch.ops.aten.hardtanh_backward(gradient, unbounded, ctx.low - 1, ctx.high + 1)
        return inside, None, None, None, None, None, None
