"""Cross-entropy of a linear output layer or a mixture of softmaxes, its gradient made while logits are in cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# Rows of logits at a time: 32 x 10,000 floats are 1.3 MB and stay in a core's second-level cache, where the softmax's
# several passes are several times faster than in memory.  A GPU takes all rows of a piece: there launches cost more.
CHUNK = 32
# Rows are taken in pieces whose logits stay below this many bytes, however long the batch and the vocabulary are.
PIECE_BYTES = 1 << 27
# Matrix products like inner sizes that fill whole tiles of the processor: 300 columns take as long as 512 would.
TILE = 32


class LinearCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy (nats) of ``softmax(x W^T + b)`` against ``targets``, or of several x mixed by their shares.

    W ``[classes, size]``, b ``[classes]``, targets ``[N]`` int64, shares None or their logits ``[N, softmaxes]``, every
    x ``[N, size]`` -> scalar float32.  Where the loss ``learns`` its gradients are made in the forward pass; on a
    processor the softmax runs chunk by chunk in cache.  Under bfloat16 autocast the matrix products (the bias is a
    column of theirs) and the buffers of logits, one for each x, are bfloat16, the softmax is float32; a buffer has at
    most ``PIECE_BYTES`` (or ``CHUNK`` rows).  A probability below float32's smallest normal number counts as that (87
    nats).
    """

    @staticmethod
    def forward(
        ctx: Any,
        learns: bool,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        shares: Tensor | None,
        *xs: Tensor,
    ) -> Tensor:
        device, count, size = xs[0].device.type, *xs[0].shape
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
        negative_log_likelihood = torch.zeros((), dtype=torch.float64, device=xs[0].device)
        with torch.autocast(device, enabled=False):
            w = _with_column(weight, bias, dtype)
            rows = [_with_column(x, x.new_ones(()), dtype) for x in xs]
            mixed = None if shares is None else torch.log_softmax(shares.float(), dim=1)
            piece = max(CHUNK, PIECE_BYTES // (len(w) * w.element_size()))
            grad_x: list[list[Tensor]] = [[] for _ in xs]
            grad_shares: list[Tensor] = []
            grad_w: Tensor | None = None
            for first in range(0, count, piece):
                own, wanted = [x[first : first + piece] for x in rows], targets[first : first + piece]
                # One buffer a softmax: logits, then probabilities, then the gradient of the logits.
                buffers = [x @ w.T for x in own]
                chunk = len(wanted) if xs[0].is_cuda else CHUNK
                for start in range(0, len(wanted), chunk):
                    part = slice(start, start + chunk)
                    log_shares = None if mixed is None else mixed[first : first + piece][part]
                    log_likelihood, *made = _gradient([buffer[part] for buffer in buffers], wanted[part], log_shares)
                    negative_log_likelihood -= log_likelihood.sum(dtype=torch.float64)
                    grad_shares += made
                if learns:
                    for x, buffer, found in zip(own, buffers, grad_x, strict=True):
                        found.append(buffer @ w)
                        product = buffer.T @ x
                        grad_w = product if grad_w is None else grad_w.add_(product)
                    del buffer, product
                del buffers  # before the next piece is made
            if not learns:
                return (negative_log_likelihood / count).float()
            joined = [found[0] if len(found) == 1 else torch.cat(found) for found in grad_x]
            ctx.save_for_backward(grad_w, *(() if shares is None else (torch.cat(grad_shares),)), *joined)
        ctx.size, ctx.count, ctx.mixed = size, count, shares is not None
        return (negative_log_likelihood / count).float()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        grad_w, *rest = ctx.saved_tensors
        size, factor = ctx.size, gradient / ctx.count
        grad_shares = rest.pop(0) * factor if ctx.mixed else None
        weight, bias, *xs = (
            part.float().mul_(factor) for part in (grad_w[:, :size], grad_w[:, size], *(x[:, :size] for x in rest))
        )
        return None, weight, bias, None, grad_shares, *xs


def _gradient(logits: list[Tensor], targets: Tensor, log_shares: Tensor | None) -> tuple[Tensor, ...]:
    """Log-likelihood of each row; ``logits`` become their gradients of its negative, and that of the shares follows.

    logits: one ``[rows, classes]`` a softmax.  A softmax answers for the share of the likelihood that is its own.
    """
    index = targets[:, None]
    probabilities = [torch.softmax(each, dim=1, dtype=torch.float32) for each in logits]
    picked = [each.gather(1, index).clamp_min_(torch.finfo(torch.float32).tiny) for each in probabilities]
    if log_shares is None:
        logits[0].copy_(probabilities[0].scatter_(1, index, picked[0] - 1))
        return (picked[0].log(),)
    joint = log_shares + torch.cat(picked, 1).log()
    total = torch.logsumexp(joint, dim=1, keepdim=True)
    own = (joint - total).exp()
    for k, each in enumerate(logits):
        each.copy_(probabilities[k].scatter_(1, index, picked[k] - 1).mul_(own[:, k, None]))
    return total, log_shares.exp() - own


def _with_column(matrix: Tensor, column: Tensor, dtype: torch.dtype) -> Tensor:
    """``matrix`` and ``column`` beside it, followed by columns of zeros up to a whole tile."""
    rows, size = matrix.shape
    wide = matrix.new_zeros(rows, -(-(size + 1) // TILE) * TILE, dtype=dtype)
    wide[:, :size] = matrix
    wide[:, size] = column
    return wide


def linear_cross_entropy(
    x: Tensor | Sequence[Tensor], weight: Tensor, bias: Tensor, targets: Tensor, shares: Tensor | None = None
) -> Tensor:
    """See :class:`LinearCrossEntropy`; leading axes of x (with ``shares`` one a softmax) and targets are flattened."""
    xs = (x,) if isinstance(x, Tensor) else tuple(x)
    shares = None if shares is None else shares.reshape(-1, shares.shape[-1])
    rows = (x.reshape(-1, x.shape[-1]) for x in xs)
    return LinearCrossEntropy.apply(torch.is_grad_enabled(), weight, bias, targets.reshape(-1), shares, *rows)
