"""Lengths behind a stride."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.program.graph import Node, Tensor, Value
from irnn.program.ops.base import Array, Operand, Operation, Range


class Shorten(Operation):
    """See ``documentation``."""

    name = "shorten"
    documentation = (
        "lengths -> `floor((length + offset) / factor)`, an offset that is not said being factor - 1 (factor)"
    )

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """The quotients of the ends."""
        offset, factor = part(node)
        low, high = ((bound + offset) // factor for bound in inputs[0].range)
        return (low, high), []

    def format_version(self, node: Node, values: Mapping[str, Value]) -> int:
        """Version 1 knows the ceiling alone."""
        return 2 if "offset" in node.attributes else 1

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """What is divided is positive: the result is a length, 1 or more."""
        offset, factor = part(node)
        return (inputs[0] + offset) // factor


def part(node: Node) -> tuple[int, int]:
    """(offset, factor) of the operation."""
    factor = node.attributes["factor"]
    return node.attributes.get("offset", factor - 1), factor
