"""An elementwise product."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.arithmetic import fixed_point
from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range


class Multiply(Operation):
    """See ``documentation``."""

    name = "multiply"
    documentation = "(a - zero_point_a) * (b - zero_point_b), int32 (zero_point_a, zero_point_b)"

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """The extreme products of both ranges' ends."""
        first, second = inputs
        x = [v - node.attributes["zero_point_a"] for v in first.range]
        y = [v - node.attributes["zero_point_b"] for v in second.range]
        products = [p * q for p in x for q in y]
        return (min(products), max(products)), []

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """``fixed_point.multiply``."""
        return fixed_point.multiply(
            ops, inputs[0], inputs[1], node.attributes["zero_point_a"], node.attributes["zero_point_b"]
        )
