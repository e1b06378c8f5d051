"""A sum at one scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.arithmetic import fixed_point
from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range, attribute_range


class Add(Operation):
    """See ``documentation``."""

    name = "add"
    documentation = "a + b at one scale, saturating (low, high)"

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """It saturates."""
        return attribute_range(node), []

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """``fixed_point.add``."""
        return fixed_point.add(ops, inputs[0], inputs[1], node.attributes["low"], node.attributes["high"], dtype)
