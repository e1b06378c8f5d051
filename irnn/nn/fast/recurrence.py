"""``h_t = f(W h_{t-1} + p_t)`` over a whole sequence, f identity or ReLU, without an autograd graph of its steps.

Long sequences (QORNN's copy task has 1,000 steps and more) spend their time between the operations of a step, not in
them: here a step is one product and, with ReLU, one clamp, both forward and back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Recurrence(torch.autograd.Function):
    """p ``[time, batch, size]``, W ``[size, size]``, state before ``[batch, size]`` -> h ``[time, batch, size]``."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, weight: Tensor, before: Tensor, relu: bool) -> Tensor:
        h = torch.empty_like(p)
        turned, last = weight.T.contiguous(), before
        for t in range(len(p)):
            last = torch.addmm(p[t], last, turned, out=h[t])
            if relu:
                last.relu_()
        ctx.save_for_backward(h, weight, before)
        ctx.relu = relu
        return h

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, Tensor, None]:
        h, weight, before = ctx.saved_tensors
        grad = torch.empty_like(h)
        later = None
        for t in reversed(range(len(h))):
            if later is None:
                grad[t] = gradient[t]
            else:
                torch.addmm(gradient[t], later, weight, out=grad[t])
            if ctx.relu:
                grad[t].mul_(h[t] > 0)
            later = grad[t]
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = grad[0].T @ before
            grad_weight += grad[1:].flatten(0, 1).T @ h[:-1].flatten(0, 1)
        return grad, grad_weight, grad[0] @ weight, None


def recurrence(p: Tensor, weight: Tensor, before: Tensor, *, relu: bool) -> Tensor:
    """See :class:`Recurrence`; in the weight's dtype."""
    with torch.autocast(p.device.type, enabled=False):
        return Recurrence.apply(p.to(weight.dtype), weight, before.to(weight.dtype), relu)
