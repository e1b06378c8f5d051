"""Convolutions over time and bands, with batch norm folded in: the front end of a speech encoder, or a user's own.

Channels lie innermost: a sequence's element is ``[bands * channels]``.  On integers a convolution is a matrix product
with the neighbourhoods of every step and band as rows (im2col); the border and all padding hold the integer of 0.
The recognizer's are those of Espresso's speech_conv_lstm encoder (3x3 kernels, batch norm, ReLU).
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

from irnn.errors import IrnnError
from irnn.nn.batch_norm import BatchNorm, folded, need_statistics
from irnn.nn.linear import Weight
from irnn.program.windows import Pair, Window
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
        self.window = Window.centred((3, 3), (stride, stride))
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
        steps = -(-lengths // self.window.strides[0])
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


class FoldedConvolution(Weight):
    """An ``nn.Conv1d`` or ``nn.Conv2d`` as its user has it, with the batch norm behind it folded in.

    conv and norm stay where the user's module has them and are not registered here: weight and bias are computed from
    theirs, with the norm's running statistics, so that its scale and shift train on.  Groups are one matrix whose other
    weights are zeros.

    time_axis: which of a Conv2d's two axes is time, 0 (height) or 1 (width).  padding: in place of the convolution's
    own, ((before, behind) along time, (before, behind) along bands), as where a causal border stands in front of it.

    A padding that repeats or mirrors its border and a norm without running statistics are an :class:`IrnnError`.
    """

    batch_statistics = False

    def __init__(
        self,
        conv: nn.Conv1d | nn.Conv2d,
        norm: BatchNorm | None = None,
        *,
        time_axis: int = 0,
        padding: tuple[Pair, Pair] | None = None,
    ) -> None:
        super().__init__("weight")
        if conv.padding_mode != "zeros":
            raise IrnnError(f"padding_mode={conv.padding_mode!r}: a border holds zeros; allowed is 'zeros'")
        if norm is not None:
            need_statistics(norm)
        self._parts = (conv, norm)  # a tuple: they are registered where the user has them
        self._turned = time_axis == 1
        self.channels = conv.in_channels
        kernel, strides, dilation = (self._pair(part) for part in (conv.kernel_size, conv.stride, conv.dilation))
        window = Window(kernel, strides, dilation=dilation)
        self.window = window._replace(padding=self._padding(conv, window) if padding is None else padding)

    def _pair(self, sizes: tuple[int, ...]) -> Pair:
        """(time, band) of a convolution's sizes; a Conv1d has no bands."""
        time, band = (*sizes, 1)[:2]
        return (band, time) if self._turned else (time, band)

    def _padding(self, conv: nn.Conv1d | nn.Conv2d, window: Window) -> tuple[Pair, Pair]:
        if conv.padding == "same":
            (time, band) = (window.reach(axis) for axis in (0, 1))
            return (time // 2, time - time // 2), (band // 2, band - band // 2)
        sizes = (0, 0) if isinstance(conv.padding, str) else (*conv.padding, 0)[:2]
        time, band = sizes[::-1] if self._turned else sizes
        return (time, time), (band, band)

    @property
    def weight(self) -> Tensor:
        """``[filters, kernel_t * kernel_f * channels]``: time outermost, then band, then channel."""
        conv, norm = self._parts
        kernel = conv.weight if conv.weight.dim() == 4 else conv.weight[..., None]
        kernel = kernel.transpose(2, 3) if self._turned else kernel
        if conv.groups > 1:
            filters, each = len(kernel) // conv.groups, kernel.shape[1]
            apart = kernel.new_zeros(len(kernel), conv.in_channels, *kernel.shape[2:])
            for g in range(conv.groups):
                own = slice(g * filters, (g + 1) * filters)
                apart[own, g * each : (g + 1) * each] = kernel[own]
            kernel = apart
        matrix = kernel.permute(0, 2, 3, 1).flatten(1)
        return matrix if norm is None else matrix * folded(norm)[0][:, None]

    @property
    def bias(self) -> Tensor | None:
        """``[filters]``, what the norm adds included."""
        conv, norm = self._parts
        if norm is None:
            return conv.bias
        factor, summand = folded(norm)
        return summand if conv.bias is None else summand + conv.bias * factor

    @property
    def identity(self) -> int:
        return id(self._parts[0].weight)

    @property
    def key(self) -> tuple[object, ...]:
        """One convolution before two norms is two matrices."""
        return *super().key, id(self._parts[1]), self._turned


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
        if (stride := self.convolution.window.strides[0]) > 1:
            lengths = a.shorten(lengths, stride)
        a.ragged(lengths)
        return a.flatten(a.relu(self.output, y)), lengths
