"""Lengths behind a stride."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range


class Shorten(Operation):
    """See ``documentation``."""

    name = "shorten"
    documentation = "lengths -> `ceil(length / factor)` (factor)"

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """The ceilings of the ends."""
        low, high = (-(-bound // node.attributes["factor"]) for bound in inputs[0].range)
        return (low, high), []

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """The ceiling of a positive quotient."""
        factor = node.attributes["factor"]
        return (inputs[0] + (factor - 1)) // factor
