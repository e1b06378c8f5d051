"""``h_t = f(W h_{t-1} + p_t)`` over a whole sequence, f identity or ReLU, without an autograd graph of its steps.

Long sequences (QORNN's copy task has 1,000 steps and more) spend their time between the operations of a step, not in
them: here a step is one product and, with ReLU, one clamp, both forward and back.

A GPU waits even for those.  Without f the recurrence is linear, and there it is cut into pieces that run side by side:
each from a zero state, then the states at their starts one after the other, ``W^length`` at a time, then what those add
to every step, ``W^j`` times them.  That is twice the arithmetic in 2 sqrt(steps) products after each other.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class Recurrence(torch.autograd.Function):
    """p ``[time, batch, size]``, W ``[size, size]``, state before ``[batch, size]`` -> h ``[time, batch, size]``.

    pieces: by pieces side by side, of a linear recurrence alone.
    """

    @staticmethod
    def forward(ctx: Any, p: Tensor, weight: Tensor, before: Tensor, relu: bool, pieces: bool) -> Tensor:
        turned = weight.T.contiguous()
        h = _by_pieces(p, turned, before) if pieces else _by_steps(p, turned, before, relu=relu)
        ctx.save_for_backward(h, weight, before)
        ctx.relu, ctx.pieces = relu, pieces
        return h

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, Tensor, None, None]:
        h, weight, before = ctx.saved_tensors
        if ctx.pieces:
            grad = _by_pieces(gradient.flip(0), weight, torch.zeros_like(before)).flip(0)
        else:
            grad = _gradient_by_steps(gradient, weight, h if ctx.relu else None)
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = grad[0].T @ before
            grad_weight += grad[1:].flatten(0, 1).T @ h[:-1].flatten(0, 1)
        return grad, grad_weight, grad[0] @ weight, None, None


def _by_steps(p: Tensor, turned: Tensor, before: Tensor, *, relu: bool) -> Tensor:
    """One step after the other; ``turned`` is W^T."""
    h, last = torch.empty_like(p), before
    for t in range(len(p)):
        last = torch.addmm(p[t], last, turned, out=h[t])
        if relu:
            last.relu_()
    return h


def _gradient_by_steps(gradient: Tensor, weight: Tensor, h: Tensor | None) -> Tensor:
    """That of p, of the gradient of every h; ``h``: where ReLU lets it pass, None: everywhere."""
    grad = torch.empty_like(gradient)
    later = None
    for t in reversed(range(len(gradient))):
        if later is None:
            grad[t] = gradient[t]
        else:
            torch.addmm(gradient[t], later, weight, out=grad[t])
        if h is not None:
            grad[t].mul_(h[t] > 0)
        later = grad[t]
    return grad


def _by_pieces(p: Tensor, turned: Tensor, before: Tensor) -> Tensor:
    """``h_t = h_{t-1} W^T + p_t``; the last piece is filled up with zeros."""
    steps, batch, size = p.shape
    length = max(1, math.isqrt(steps))
    count = -(-steps // length)
    if count * length > steps:
        p = torch.cat([p, p.new_zeros(count * length - steps, batch, size)])
    # [step of a piece, piece * batch, size]
    h = p.reshape(count, length, batch, size).transpose(0, 1).reshape(length, count * batch, size)
    if h.data_ptr() == p.data_ptr():
        h = h.clone()  # nothing had to be moved: p is not to be written over
    for step in range(1, length):
        h[step].addmm_(h[step - 1], turned)
    powers = _powers(turned, length)
    ends = h[-1].view(count, batch, size)
    starts = torch.empty_like(ends)
    starts[0] = before
    for piece in range(1, count):
        torch.addmm(ends[piece - 1], starts[piece - 1], powers[-1], out=starts[piece])
    h.baddbmm_(starts.view(1, count * batch, size).expand(length, -1, -1), powers)
    return h.view(length, count, batch, size).transpose(0, 1).reshape(count * length, batch, size)[:steps]


def _powers(matrix: Tensor, count: int) -> Tensor:
    """The first ``count`` powers, from the first on: ``[count, size, size]``."""
    found = matrix[None]
    while len(found) < count:
        found = torch.cat([found, found @ found[-1]])
    return found[:count]


def recurrence(p: Tensor, weight: Tensor, before: Tensor, *, relu: bool) -> Tensor:
    """See :class:`Recurrence`; in the weight's dtype."""
    with torch.autocast(p.device.type, enabled=False):
        return Recurrence.apply(p.to(weight.dtype), weight, before.to(weight.dtype), relu, p.is_cuda and not relu)
