"""Windows over time and bands in float, on sequences ``[time, batch, bands * channels]``."""

from __future__ import annotations

import torch
from torch import Tensor

from irnn.program.windows import Window
from irnn.wiring.parts import ConvolutionPart


def image_of(x: Tensor, channels: int) -> Tensor:
    """Sequences ``[time, batch, bands * channels]`` -> ``[batch, channels, time, band]``."""
    return x.reshape(*x.shape[:2], -1, channels).permute(1, 3, 0, 2)


def flat(image: Tensor) -> Tensor:
    """The reverse of :func:`image_of`."""
    return image.permute(2, 0, 3, 1).flatten(2)


def bordered(image: Tensor, window: Window, fill: float) -> Tensor:
    (top, bottom), (left, right) = window.padding
    return torch.nn.functional.pad(image, (left, right, top, bottom), value=fill)


def convolve(module: ConvolutionPart, image: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``[batch, channels, time, band]`` -> ``[batch, filters, time', band']``; a row of the weight is a filter."""
    window = module.window
    kernel = weight.reshape(len(weight), *window.kernel, module.channels).permute(0, 3, 1, 2)
    time, band = window.padding
    if time[0] == time[1] and band[0] == band[1]:
        border = time[0], band[0]
    else:
        image, border = bordered(image, window, 0.0), (0, 0)
    return torch.nn.functional.conv2d(image, kernel, bias, window.strides, border, window.dilation)
