"""A mixture of softmaxes over one output matrix (Yang et al. 2018, "Breaking the softmax bottleneck"; lamb has it so).

``p = sum_k pi_k softmax(E tanh(W_k y + b_k) + b)`` with ``pi = softmax(V y)``.  What is quantized ends at the logits:
those of every softmax and those of the shares ``pi`` leave a program as int32, and mixing them is post-processing in
float, as a softmax is (``irnn.metrics.scores``).
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from irnn.nn.activation import Activation
from irnn.nn.containers import ModuleList
from irnn.nn.linear import Linear, uniform
from irnn.quant.site import QuantSite
from irnn.wiring.executor import Executor

T = TypeVar("T")


class Mixture(nn.Module):
    """What the output matrix multiplies, ``[size]`` for each of ``count`` softmaxes, and the logits of their shares."""

    def __init__(self, count: int, input_size: int, size: int) -> None:
        super().__init__()
        rows = count * size
        self.latent = Linear(
            uniform(input_size, rows, input_size), (nn.Parameter(torch.zeros(rows)),), reads_hidden=True
        )
        self.share = Linear(uniform(input_size, count, input_size), role="logits_weight")
        self.preactivation = QuantSite("preactivation", rows, groups=count)
        self.tanh = ModuleList(Activation("tanh", self.preactivation, k) for k in range(count))

    def wire(self, a: Executor[T], y: T, dropout: float) -> tuple[list[T], T]:
        """Features ``[input_size]`` -> (each softmax's ``[size]``, the shares' logits ``[count]`` as accumulators)."""
        parts = a.split(a.requantize(self.preactivation, a.linear(self.latent, y)), len(self.tanh))
        latent = [a.dropout(a.activation(tanh, part), dropout) for tanh, part in zip(self.tanh, parts, strict=True)]
        return latent, a.linear(self.share, y)
