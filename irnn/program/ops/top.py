"""The largest elements and their places: what a caller of a large vocabulary wants of its logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.arithmetic import fixed_point
from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range


class Top(Operation):
    """See ``documentation``."""

    name = "top"
    documentation = (
        "x (int32) `[size]` -> int32 `[2 count]`: its (count) largest elements, the largest first, then their places; "
        "of equal ones the lower place comes first"
    )
    float_programs = False

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """That of the input, and that of a place."""
        (x,) = inputs
        count, size = node.attributes["count"], x.value.shape[-1] if x.value.shape else 0
        problems = []
        if x.value.dtype != "int32":
            problems.append(f"top {node.output} reads {x.name}, which is not int32")
        if len(x.value.shape) != 1:
            problems.append(f"top {node.output} reads {x.name} of the shape {x.value.shape}, which is no row")
        if not 1 <= count <= size:
            problems.append(f"top {node.output}: the {count} largest of {size} elements; allowed are 1 to {size}")
        return (min(x.low, 0), max(x.high, size - 1)), problems

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """``fixed_point.top``."""
        return ops.concat(fixed_point.top(ops, inputs[0], node.attributes["count"]))
