"""Cross-entropy of a linear output layer, with its gradient made while the logits are in cache."""

from __future__ import annotations

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
    """Mean cross-entropy (nats) of ``softmax(x W^T + b)`` against ``targets``.

    x ``[N, size]``, W ``[classes, size]``, b ``[classes]``, targets ``[N]`` int64 -> scalar float32.  The gradients are
    made in the forward pass; on a processor the softmax runs chunk by chunk in cache.  Under bfloat16 autocast the
    matrix products (the bias is a column of theirs) and the one buffer of logits are bfloat16, the softmax is float32;
    the buffer has at most ``PIECE_BYTES`` (or ``CHUNK`` rows).  A probability below float32's smallest normal number
    counts as that (87 nats).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
        negative_log_likelihood = torch.zeros((), dtype=torch.float64, device=x.device)
        count = len(x)
        with torch.autocast(device, enabled=False):
            rows, w = _with_column(x, x.new_ones(()), dtype), _with_column(weight, bias, dtype)
            piece = max(CHUNK, PIECE_BYTES // (len(w) * w.element_size()))
            grad_x: list[Tensor] = []
            grad_w: Tensor | None = None
            for first in range(0, count, piece):
                own, wanted = rows[first : first + piece], targets[first : first + piece]
                # One buffer: logits, then probabilities, then the gradient of the logits.
                buffer = own @ w.T
                chunk = len(own) if x.is_cuda else CHUNK
                for start in range(0, len(own), chunk):
                    part = slice(start, start + chunk)
                    probabilities = torch.softmax(buffer[part], dim=1, dtype=torch.float32)
                    index = wanted[part, None]
                    picked = probabilities.gather(1, index).clamp_min_(torch.finfo(torch.float32).tiny)
                    negative_log_likelihood -= picked.log().sum(dtype=torch.float64)
                    buffer[part] = probabilities.scatter_(1, index, picked - 1)
                grad_x.append(buffer @ w)
                made = buffer.T @ own
                grad_w = made if grad_w is None else grad_w.add_(made)
                del buffer, made  # before the next piece is made
            ctx.save_for_backward(grad_x[0] if len(grad_x) == 1 else torch.cat(grad_x), grad_w)
        ctx.size, ctx.count = x.shape[1], count
        return (negative_log_likelihood / count).float()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        grad_x, grad_w = ctx.saved_tensors
        size, factor = ctx.size, gradient / ctx.count
        parts = (grad_x[:, :size], grad_w[:, :size], grad_w[:, size])
        return *(part.float().mul_(factor) for part in parts), None


def _with_column(matrix: Tensor, column: Tensor, dtype: torch.dtype) -> Tensor:
    """``matrix`` and ``column`` beside it, followed by columns of zeros up to a whole tile."""
    rows, size = matrix.shape
    wide = matrix.new_zeros(rows, -(-(size + 1) // TILE) * TILE, dtype=dtype)
    wide[:, :size] = matrix
    wide[:, size] = column
    return wide


def linear_cross_entropy(x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """See :class:`LinearCrossEntropy`; leading axes of ``x`` and ``targets`` are flattened."""
    return LinearCrossEntropy.apply(x.reshape(-1, x.shape[-1]), weight, bias, targets.reshape(-1))
