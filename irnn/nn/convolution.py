"""3x3 convolutions over time and frequency, with batch norm folded in: the front end of a speech encoder.

Channels lie innermost: a sequence's element is ``[bands * channels]``.  On integers a convolution is a matrix product
with the neighbourhoods of every step and band as rows (im2col); the border and all padding hold the integer of 0.
Source: Espresso's speech_conv_lstm encoder (3x3 kernels, batch norm, ReLU).
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

from irnn.errors import IrnnError
from irnn.nn.linear import Weight
from irnn.quant.site import QuantSite
from irnn.wiring.executor import Executor

T = TypeVar("T")


class Convolution(Weight):
    """``filters`` 3x3 filters over ``channels`` with batch norm; ``weight [filters, 9 * channels]`` has it folded in.

    Columns: time outermost, then band, then channel.  In training of the float stage the norm takes the batch's
    statistics; from stage "pwl" on the running ones are part of the weight, so training sees the integers' weight.
    """

    MOMENTUM = 0.1
    EPSILON = 1e-5

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__("weight")
        self.channels = channels
        self.filters = filters
        self.kernel_size = (3, 3)
        self.strides = (stride, stride)
        bound = math.sqrt(6 / (9 * channels))  # He: the ReLU halves the variance
        self.kernel = nn.Parameter(torch.empty(filters, 9 * channels).uniform_(-bound, bound))
        self.gamma = nn.Parameter(torch.ones(filters))
        self.beta = nn.Parameter(torch.zeros(filters))
        self.register_buffer("mean", torch.zeros(filters))
        self.register_buffer("variance", torch.ones(filters))
        self.batch_statistics = True

    @property
    def weight(self) -> Tensor:
        """The kernel times what the norm multiplies with ``[filters, 9 * channels]``."""
        return self.kernel * self._factor[:, None]

    @property
    def bias(self) -> Tensor:
        """What the norm adds ``[filters]``."""
        return self.beta - self.mean * self._factor

    @property
    def identity(self) -> int:
        return id(self.kernel)

    @property
    def _factor(self) -> Tensor:
        return self.gamma / torch.sqrt(self.variance + self.EPSILON)

    def normalized(self, y: Tensor, lengths: Tensor) -> Tensor:
        """Training: ``y [batch, filters, time, band]`` by the statistics of its valid steps -> ``[time, batch, ...]``.

        ``lengths`` are those of the input.  Padding is left out, so it changes neither the result nor the running
        statistics.
        """
        y = y.permute(2, 0, 3, 1)
        steps = -(-lengths // self.strides[0])
        valid = torch.arange(len(y), device=y.device)[:, None] < steps
        rows = valid.flatten().nonzero()[:, 0]
        packed = y.flatten(0, 1).index_select(0, rows).flatten(0, 1)
        result, mean, deviation = torch.native_batch_norm(
            packed, self.gamma, self.beta, None, None, True, 0.0, self.EPSILON
        )
        if not bool(torch.isfinite(mean).all() and torch.isfinite(deviation).all()):
            raise IrnnError(
                f"{self.where}: the statistics of this batch are NaN or infinite; mend its features or the weights "
                "before it"
            )
        with torch.no_grad():
            self.mean.lerp_(mean.to(self.mean.dtype), self.MOMENTUM)
            variance = deviation.double().pow(-2) - self.EPSILON  # the norm gives 1 / sqrt(variance + epsilon)
            self.variance.lerp_(variance.to(self.variance.dtype), self.MOMENTUM)
        padded = result.new_zeros(valid.numel(), *y.shape[2:])
        return padded.index_copy(0, rows, result.unflatten(0, (-1, y.shape[2]))).unflatten(0, valid.shape)


class ConvolutionLayer(nn.Module):
    """Convolution, batch norm, ReLU; the output is quantized once, by the clamp that is also the ReLU."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.convolution = Convolution(channels, filters, stride)
        self.output = QuantSite("activation", filters)

    def wire(self, a: Executor[T], x: T, lengths: T) -> tuple[T, T]:
        """Sequence ``[bands * channels]`` and its lengths -> sequence ``[bands' * filters]`` and its lengths."""
        a.ragged(lengths)
        y = a.convolution(self.convolution, a.mask(x))
        if self.convolution.strides[0] > 1:
            lengths = a.shorten(lengths, self.convolution.strides[0])
        a.ragged(lengths)
        return a.flatten(a.relu(self.output, y)), lengths
