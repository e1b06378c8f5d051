"""Neighbourhoods, for a convolution as a matrix product."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.program.graph import Node, Tensor, Value
from irnn.program.ops.base import Array, Operand, Operation, Range, window_problems
from irnn.program.windows import Window


class Patches(Operation):
    """See ``documentation``."""

    name = "patches"
    documentation = (
        "sequence of `[bands * channels]` -> `[bands', kernel_t * kernel_f * channels]`, the rows of a convolution as "
        "a `linear`: time outermost, then band, then channel; the border holds (fill), and is `kernel // 2` wide where "
        "no (padding), (dilation) are said (channels, kernel, strides, fill); pairs are [time, band], padding is "
        "[[before, behind], [before, behind]]"
    )

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """The input's, with the border."""
        fill = node.attributes["fill"]
        return (min(inputs[0].low, fill), max(inputs[0].high, fill)), window_problems(node, inputs[0])

    def format_version(self, node: Node, values: Mapping[str, Value]) -> int:
        """Version 1 knows borders of half a kernel alone."""
        return 2 if "padding" in node.attributes else 1

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """The neighbourhoods of every (strided) step and band."""
        a = node.attributes
        return ops.concat(taps(ops, inputs[0], a["channels"], Window.of(a), a["fill"]))


def taps(ops: Any, x: Array, channels: int, window: Window, fill: int) -> list[Array]:
    """Of ``x [batch, time, bands * channels]`` what each tap of the window reads: ``[batch, time', bands', channels]``.

    Time outermost.  The border holds ``fill``.
    """
    x = x.reshape(*x.shape[:2], -1, channels)
    counts = [window.places(axis, x.shape[axis + 1]) for axis in (0, 1)]
    for axis, (before, behind) in enumerate(window.padding):
        x = ops.pad(x, axis + 1, before, behind, fill)
    (kernel_t, kernel_f), (stride_t, stride_f), (dilation_t, dilation_f) = (
        window.kernel, window.strides, window.dilation,
    )  # fmt: skip
    times = [slice(dt * dilation_t, dt * dilation_t + stride_t * counts[0], stride_t) for dt in range(kernel_t)]
    bands = [slice(df * dilation_f, df * dilation_f + stride_f * counts[1], stride_f) for df in range(kernel_f)]
    return [x[:, time, band] for time in times for band in bands]
