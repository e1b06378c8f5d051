"""The product with a recurrent weight, step after step, whose weight gradient is made once a sequence.

Autograd would make one outer product a step and add them up: for 35 steps of an LSTM of 300 units a third of the whole
training step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class RecurrentProduct:
    """``h W^T`` for the steps of one forward pass over a sequence; ``weight`` is ``[rows, columns]``."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.started = False
        self.pending: list[tuple[Tensor, Tensor]] = []

    def __call__(self, h: Tensor) -> Tensor:
        """h ``[batch, columns]`` -> ``[batch, rows]``, in the weight's dtype."""
        first, self.started = not self.started, True
        return _Step.apply(h.to(self.weight.dtype), self.weight, self, first)


class _Step(torch.autograd.Function):
    """One step.  Every step depends on the first, so the first one's backward pass is the last to run."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, product: RecurrentProduct, first: bool) -> Tensor:
        ctx.save_for_backward(h, weight)
        ctx.product, ctx.first = product, first
        return h @ weight.T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        h, weight = ctx.saved_tensors
        pending = ctx.product.pending
        pending.append((gradient, h))
        grad_weight = None
        if ctx.first:
            gradients, inputs = (torch.cat(tensors) for tensors in zip(*pending, strict=True))
            pending.clear()
            grad_weight = gradients.T @ inputs if ctx.needs_input_grad[1] else None
        grad_h = gradient @ weight if ctx.needs_input_grad[0] else None
        return grad_h, grad_weight, None, None
