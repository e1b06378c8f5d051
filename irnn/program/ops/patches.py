"""Neighbourhoods, for a convolution as a matrix product."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range


class Patches(Operation):
    """See ``documentation``."""

    name = "patches"
    documentation = (
        "sequence of `[bands * channels]` -> `[bands', kernel_t * kernel_f * channels]`, the rows of a convolution as "
        "a `linear`: time outermost, then band, then channel; a border of `kernel // 2` holds (fill) "
        "(channels, kernel, strides, fill); kernel and strides are [time, band]"
    )

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """The input's, with the border."""
        fill = node.attributes["fill"]
        return (min(inputs[0].low, fill), max(inputs[0].high, fill)), []

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """The neighbourhoods of every (strided) step and band."""
        (x,), a = inputs, node.attributes
        x = x.reshape(*x.shape[:2], -1, a["channels"])
        (kernel_t, kernel_f), (stride_t, stride_f) = a["kernel"], a["strides"]
        # Half a kernel of border on both sides: ceil(size / stride) neighbourhoods.
        counts = [-(-size // stride) for size, stride in zip(x.shape[1:3], (stride_t, stride_f), strict=True)]
        for axis, kernel in ((1, kernel_t), (2, kernel_f)):
            x = ops.pad(x, axis, kernel // 2, kernel // 2, a["fill"])
        parts = [
            x[:, dt : dt + stride_t * counts[0] : stride_t, df : df + stride_f * counts[1] : stride_f]
            for dt in range(kernel_t)
            for df in range(kernel_f)
        ]
        return ops.concat(parts)
