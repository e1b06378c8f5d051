"""The largest value, and the mean, of a window that moves over time and bands."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

from irnn.arithmetic.fixed_point import INT32_MAX
from irnn.program.graph import INTEGER_DTYPES, Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range, window_problems
from irnn.program.ops.patches import taps
from irnn.program.windows import Window


class MaxPool(Operation):
    """See ``documentation``."""

    name = "max_pool"
    documentation = (
        "sequence of `[bands * channels]` -> `[bands' * channels]`, the largest value of each channel in a window; the "
        "border never is it (channels, kernel, strides, padding, dilation, as those of `patches`)"
    )

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """That of the input: every window holds a value that is none of the border's."""
        window, problems = Window.of(node.attributes), window_problems(node, inputs[0])
        dilated = max(window.dilation) > 1 and window.padding != ((0, 0), (0, 0))
        if dilated or any(max(window.padding[axis]) > window.reach(axis) for axis in (0, 1)):
            problems.append(f"max_pool {node.output} may see nothing but the border")
        return inputs[0].range, problems

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """The largest of the taps."""
        a = node.attributes
        found = taps(ops, inputs[0], a["channels"], Window.of(a), INTEGER_DTYPES[dtype][0])
        largest = reduce(lambda p, q: ops.where(p <= q, q, p), found)
        return largest.reshape(*largest.shape[:2], -1)


class MeanPool(Operation):
    """See ``documentation``."""

    name = "mean_pool"
    documentation = (
        "sequence of `[bands * channels]` -> `[bands' * channels]`, the mean of each channel in a window, the border "
        "counted as 0; integer programs: the sum of x - zero_point, an accumulator (zero_point; channels, kernel, "
        "strides, padding, dilation, as those of `patches`)"
    )

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """As many of the input's ends as there are taps."""
        (x,), a = inputs, node.attributes
        count = a["kernel"][0] * a["kernel"][1]
        low, high = min(x.low - a["zero_point"], 0) * count, max(x.high - a["zero_point"], 0) * count
        problems = window_problems(node, x)
        if max(-low, high) > INT32_MAX:
            problems.append(f"mean_pool {node.output} could overflow int32 with {count} taps")
        return (low, high), problems

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """The sum of the taps; the border holds the integer of 0."""
        a = node.attributes
        found = taps(ops, inputs[0], a["channels"], Window.of(a), a["zero_point"])
        total_i32 = reduce(lambda p, q: p + q, [ops.to(x, "int32") - ops.to(a["zero_point"], "int32") for x in found])
        return total_i32.reshape(*total_i32.shape[:2], -1)
