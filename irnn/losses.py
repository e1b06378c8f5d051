"""Cross-entropy of a linear output layer, with its gradient made while the logits are in cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Rows of logits at a time: 32 x 10,000 floats are 1.3 MB and stay in a core's second-level cache, where the softmax's
# several passes are several times faster than in memory.
CHUNK = 32


class LinearCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy (nats) of ``softmax(x W^T + b)`` against ``targets``.

    x ``[N, size]``, W ``[classes, size]``, b ``[classes]``, targets ``[N]`` int64 -> scalar float32.  The gradients are
    made in the forward pass; the softmax runs chunk by chunk in cache.  Under bfloat16 autocast the matrix products and
    the one ``[N, classes]`` buffer are bfloat16, the softmax is float32.  A probability below float32's smallest normal
    number counts as that (87 nats).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        if x.device.type != "cpu":
            dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else dtype
        rows, w = x.detach().to(dtype), weight.detach().to(dtype)
        negative_log_likelihood = torch.zeros((), dtype=torch.float64, device=x.device)
        count = len(x)
        with torch.autocast(x.device.type, enabled=False):
            # One buffer: logits, then probabilities, then the gradient of the logits.
            buffer = rows @ w.T
            for start in range(0, count, CHUNK):
                part = slice(start, start + CHUNK)
                probabilities = torch.softmax(buffer[part].float().add_(bias.detach()), dim=1)
                index = targets[part, None]
                picked = probabilities.gather(1, index).clamp_min_(torch.finfo(torch.float32).tiny)
                negative_log_likelihood -= picked.log().sum(dtype=torch.float64)
                buffer[part] = probabilities.scatter_(1, index, picked - 1)
            grad_x = (buffer @ w).float()
            grad_w = (buffer.T @ rows).float()
            grad_b = (buffer.new_ones(1, count) @ buffer)[0].float()
        ctx.save_for_backward(grad_x.div_(count), grad_w.div_(count), grad_b.div_(count))
        return (negative_log_likelihood / count).float()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        grad_x, grad_w, grad_b = ctx.saved_tensors
        return grad_x * gradient, grad_w * gradient, grad_b * gradient, None


def linear_cross_entropy(x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """See :class:`LinearCrossEntropy`; leading axes of ``x`` and ``targets`` are flattened."""
    return LinearCrossEntropy.apply(x.reshape(-1, x.shape[-1]), weight, bias, targets.reshape(-1))
