"""A bidirectional LSTM in exact float, both directions in one time loop, its gradient written out.

Autograd over single operations is three times slower: a step of a small recognizer is a matrix product of microseconds
among forty tiny tensors.  Where anything is quantized, observed or piecewise linear the wiring is executed as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

sigmoid_backward, tanh_backward = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward


def exact_bilstm(
    x: Tensor,
    lengths: Tensor | None,
    w_x: Sequence[Tensor],
    bias: Sequence[Tensor | None],
    w_h: Sequence[Tensor],
    state: Sequence[Tensor],
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The layer over a padded batch of sequences; pairs are (forward, backward), gates stand in the order i, f, g, o.

    x ``[time, batch, input]``, lengths ``[batch]`` or None, w_x ``[4 hidden, input]``, bias ``[4 hidden]``,
    w_h ``[4 hidden, hidden]``, state h and c ``[2, batch, hidden]`` -> outputs ``[time, batch, 2 hidden]`` (padding
    holds no meaning) and the states after each sequence's last step of either direction.
    """
    steps, batch = x.shape[:2]
    order = _backward_order(steps, batch, lengths, x.device)
    inputs = (x, _Permute.apply(x, order))
    pre = [torch.nn.functional.linear(part, *_doubled(w, b)) for part, w, b in zip(inputs, w_x, bias, strict=True)]
    weight = torch.stack([_doubled(w, None)[0] for w in w_h])
    h, c = _BiLstm.apply(*pre, weight.to(pre[0].dtype), *(part.to(pre[0].dtype) for part in state))
    last = x.new_full((batch,), steps - 1, dtype=torch.long) if lengths is None else lengths - 1
    rows = torch.arange(batch, device=x.device)
    after = tuple(values[last, :, rows].transpose(0, 1) for values in (h, c))
    return torch.cat([h[:, 0], _Permute.apply(h[:, 1].contiguous(), order)], dim=-1), after


def _doubled(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Rows of gate g twice as large: ``tanh(x) = 2 sigmoid(2 x) - 1``, so that one call makes all four gates."""
    factor = weight.new_ones(4, 1)
    factor[2] = 2
    factor = factor.expand(4, len(weight) // 4).reshape(-1)
    return weight * factor[:, None], None if bias is None else bias * factor


def _backward_order(steps: int, batch: int, lengths: Tensor | None, device: torch.device) -> Tensor:
    """Rows of ``[time * batch]`` with every sequence turned around and its padding left in place: its own inverse."""
    time = torch.arange(steps, device=device)[:, None].expand(steps, batch)
    end = time.new_full((batch,), steps) if lengths is None else lengths
    turned = torch.where(time < end, end - 1 - time, time)
    return (turned * batch + torch.arange(batch, device=device)).flatten()


class _Permute(torch.autograd.Function):
    """Rows of ``[time, batch, size]`` in an order that is its own inverse."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return x.flatten(0, 1).index_select(0, order).view(x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (order,) = ctx.saved_tensors
        return gradient.flatten(0, 1).index_select(0, order).view(gradient.shape), None


class _BiLstm(torch.autograd.Function):
    """W_x x + b of either direction ``[time, batch, 4 hidden]``, W_h ``[2, 4 hidden, hidden]``, h and c
    ``[2, batch, hidden]`` -> h and c of every step ``[time, 2, batch, hidden]``; gate g's rows are doubled.

    All of a step stays in the processor's first caches, whole sequences would not: hence the many small calls.
    """

    @staticmethod
    def forward(
        ctx: Any, forward: Tensor, backward: Tensor, w_h: Tensor, h: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor]:
        steps, hidden = len(forward), h.shape[-1]
        gates = torch.stack([forward, backward], dim=1)
        weight = w_h.transpose(1, 2).contiguous()
        hs, cs = gates.new_empty(steps + 1, *h.shape), gates.new_empty(steps + 1, *c.shape)
        hs[0], cs[0] = h, c
        tanh_c, candidate = torch.empty_like(cs[1:]), torch.empty_like(cs[1:])
        minus_one = gates.new_full((), -1.0)
        i, f, double_g, o = gates.unflatten(-1, (4, hidden)).unbind(-2)
        every = (gates, i, f, double_g, o, candidate, tanh_c, hs[:-1], hs[1:], cs[:-1], cs[1:])
        for gate, i, f, double_g, o, g, tanh, h, after_h, c, after_c in zip(*map(torch.unbind, every), strict=True):
            gate.baddbmm_(h, weight).sigmoid_()
            torch.add(minus_one, double_g, alpha=2, out=g)
            torch.mul(f, c, out=after_c).addcmul_(i, g)
            torch.tanh(after_c, out=tanh)
            torch.mul(o, tanh, out=after_h)
        ctx.save_for_backward(gates, w_h, hs, cs, tanh_c, candidate)
        ctx.set_materialize_grads(False)
        return hs[1:], cs[1:]

    @staticmethod
    def backward(ctx: Any, grad_h: Tensor | None, grad_c: Tensor | None) -> tuple[Tensor, ...]:
        gates, w_h, hs, cs, tanh_c, candidate = ctx.saved_tensors
        hidden = cs.shape[-1]
        grad_gates = torch.empty_like(gates)
        split = [x.unflatten(-1, (4, hidden)).unbind(-2) for x in (gates, grad_gates)]
        half = w_h.new_full((), 0.5)
        grad_next_h, grad_next_c = torch.zeros_like(cs[0]), torch.zeros_like(cs[0])
        every = (candidate, tanh_c, cs[:-1], grad_gates, *split[0], *split[1])
        steps = list(enumerate(zip(*map(torch.unbind, every), strict=True)))
        for t, (g, tanh, c, grad_gate, i, f, _, o, grad_i, grad_f, grad_g, grad_o) in reversed(steps):
            if grad_h is not None:
                grad_next_h += grad_h[t]
            if grad_c is not None:
                grad_next_c += grad_c[t]
            grad_next_c += tanh_backward(grad_next_h * o, tanh)
            sigmoid_backward(grad_next_h * tanh, o, grad_input=grad_o)
            sigmoid_backward(grad_next_c * g, i, grad_input=grad_i)
            sigmoid_backward(grad_next_c * c, f, grad_input=grad_f)
            tanh_backward(grad_next_c * i * half, g, grad_input=grad_g)
            grad_next_c *= f
            torch.bmm(grad_gate, w_h, out=grad_next_h)
        # One product a direction instead of one a step.
        both = (x.transpose(0, 1).flatten(1, 2) for x in (grad_gates, hs[:-1]))
        grad_w = torch.bmm(next(both).transpose(1, 2), next(both))
        return *grad_gates.unbind(1), grad_w, grad_next_h, grad_next_c
