"""One direction of a Mogrifier layer of real numbers, all steps, without an autograd graph of its steps.

A step is many small operations: between them lies what a GPU, or Python, loses time with.  Here each is one call into a
buffer of the whole sequence, forward and back, and the weights' gradients are one product each at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

tanh_backward, sigmoid_backward = torch.ops.aten.tanh_backward, torch.ops.aten.sigmoid_backward


class ExactMogrifier(torch.autograd.Function):
    """x ``[time, batch, input]``, h and c before ``[batch, hidden]`` -> (h, c) ``[time, batch, hidden]`` of every step.

    W_x ``[4 hidden, input]``, bias ``[4 hidden]``, W_h ``[4 hidden, hidden]`` in the gate order i, f, g, o; rounds:
    left ``[rank, read]``, right ``[gated, rank]``, bias ``[gated]`` of each.  ``2 sigmoid(z) = 1 + tanh(z / 2)``.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h: Tensor, c: Tensor, w_x: Tensor, bias: Tensor, w_h: Tensor, *rounds: Tensor
    ) -> tuple[Tensor, Tensor]:
        time, batch, size = len(x), len(h), h.shape[1]
        w_x, bias, w_h = (_turned(part) for part in (w_x, bias, w_h))  # i, f, o, g: sigmoids side by side
        w_x_t, w_h_t = w_x.T.contiguous(), w_h.T.contiguous()
        lefts = list(rounds[::3])
        rights, biases = [r / 2 for r in rounds[1::3]], [b / 2 for b in rounds[2::3]]
        lefts_t, rights_t = [a.T.contiguous() for a in lefts], [b.T.contiguous() for b in rights]

        def steps(width: int) -> Tensor:
            return x.new_empty(time, batch, width)

        # What each round reads and gates, before and behind it: x and h in turns.
        gated = [steps(len(right)) for right in rights]
        low, tanhs = [steps(len(left)) for left in lefts], [steps(len(right)) for right in rights]
        pre, cap, read_h = steps(4 * size), steps(size), steps(size)
        cells, read_c, tanh_c, output = steps(size), steps(size), steps(size), steps(size)
        for t in range(time):
            read_h[t], read_c[t] = h, c
            now = [x[t], read_h[t]]
            for k in range(len(lefts)):
                changed = k % 2
                torch.mm(now[1 - changed], lefts_t[k], out=low[k][t])
                torch.addmm(biases[k], low[k][t], rights_t[k], out=tanhs[k][t]).tanh_()
                y = now[changed]
                now[changed] = torch.addcmul(y, y, tanhs[k][t], out=gated[k][t])
            torch.addmm(bias, now[0], w_x_t, out=pre[t]).addmm_(now[1], w_h_t)
            pre[t, :, : 3 * size].sigmoid_()
            g = pre[t, :, 3 * size :].tanh_()
            i, f, o = pre[t, :, : 3 * size].chunk(3, 1)
            torch.minimum(1 - f, i, out=cap[t])
            c = torch.mul(f, c, out=cells[t]).addcmul_(cap[t], g)
            h = torch.mul(o, torch.tanh(c, out=tanh_c[t]), out=output[t])
        ctx.save_for_backward(x, w_x, w_h, read_h, read_c, pre, cap, tanh_c, *lefts, *rights, *gated, *low, *tanhs)
        ctx.rounds = len(lefts)
        return output, cells

    @staticmethod
    def backward(ctx: Any, grad_h: Tensor, grad_c: Tensor) -> tuple[Tensor | None, ...]:
        x, w_x, w_h, read_h, read_c, pre, cap, tanh_c, *rest = ctx.saved_tensors
        n, (time, batch, size) = ctx.rounds, read_h.shape
        lefts, rights, gated, low, tanhs = (rest[k * n : (k + 1) * n] for k in range(5))
        gates = torch.empty_like(pre)  # the gradient before the four functions, i, f, o, g
        lows, zs = ([torch.empty_like(part) for part in parts] for parts in (low, tanhs))
        grad_x = torch.empty_like(x)
        before = [_before(k, x, read_h, gated) for k in range(n)]  # what each round gates
        i, f, o, g = pre.chunk(4, 2)
        open_i = (i < 1 - f).to(x.dtype)
        dh, dc = x.new_zeros(batch, size), x.new_zeros(batch, size)
        for t in reversed(range(time)):
            dh = dh + grad_h[t]
            dc = tanh_backward(dh * o[t], tanh_c[t]) + dc + grad_c[t]
            own = gates[t]
            d_i, d_f, d_o = own[:, : 3 * size].chunk(3, 1)
            d_cap = dc * g[t]
            torch.mul(d_cap, open_i[t], out=d_i)
            torch.mul(dc, read_c[t], out=d_f).sub_(d_cap).add_(d_i)
            torch.mul(dh, tanh_c[t], out=d_o)
            own[:, : 3 * size] = sigmoid_backward(own[:, : 3 * size], pre[t, :, : 3 * size])
            own[:, 3 * size :] = tanh_backward(dc * cap[t], g[t])
            dc = dc * f[t]
            now = [own @ w_x, own @ w_h]
            for k in reversed(range(n)):
                changed = k % 2
                dy = now[changed]
                zs[k][t] = tanh_backward(dy * before[k][t], tanhs[k][t])
                now[changed] = torch.addcmul(dy, dy, tanhs[k][t])
                torch.mm(zs[k][t], rights[k], out=lows[k][t])
                now[1 - changed] = torch.addmm(now[1 - changed], lows[k][t], lefts[k])
            grad_x[t], dh = now
        # The products of all steps at once.
        flat = gates.flatten(0, 1)
        last = [_before(n + (n + changed) % 2, x, read_h, gated) for changed in (0, 1)]
        rows = (flat.T @ last[0].flatten(0, 1), flat.sum(0), flat.T @ last[1].flatten(0, 1))
        grads = [_turned(part) for part in rows]
        for k in range(n):
            read = _before(k + 1, x, read_h, gated[:k])
            z = zs[k].flatten(0, 1)
            grads.append(lows[k].flatten(0, 1).T @ read.flatten(0, 1))
            grads += [z.T @ low[k].flatten(0, 1) / 2, z.sum(0) / 2]
        return grad_x, dh, dc, *grads


def _turned(rows: Tensor) -> Tensor:
    """Of four parts the last two change places: i, f, g, o and i, f, o, g become each other."""
    first, second, third, fourth = rows.chunk(4)
    return torch.cat([first, second, fourth, third])


def _before(k: int, x: Tensor, read_h: Tensor, gated: Sequence[Tensor]) -> Tensor:
    """What a round ``k`` would gate: the last of x (k even) or of h (odd) that ``gated`` holds before it."""
    last = k - 2
    while last >= len(gated):
        last -= 2
    return gated[last] if last >= 0 else (x, read_h)[k % 2]


def exact_mogrifier(
    x: Tensor, lengths: Tensor | None, w_x: Tensor, bias: Tensor | None, w_h: Tensor,
    rounds: Sequence[tuple[Tensor, Tensor, Tensor]], states: Sequence[Tensor],
) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
    """h ``[time, batch, hidden]`` and the last states h, c (of each sequence its last valid step's), in W's dtype."""
    with torch.autocast(x.device.type, enabled=False):
        given = [value.to(w_x.dtype) for value in (x, *states)]
        bias = w_x.new_zeros(len(w_x)) if bias is None else bias
        h, c = ExactMogrifier.apply(*given, w_x, bias, w_h, *(part for parts in rounds for part in parts))
    if lengths is None:
        return h, [h[-1], c[-1]]
    rows = torch.arange(len(lengths), device=x.device)
    return h, [part[lengths - 1, rows] for part in (h, c)]
