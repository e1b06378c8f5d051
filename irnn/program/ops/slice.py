"""A part of the last axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range


class Slice(Operation):
    """See ``documentation``."""

    name = "slice"
    documentation = "elements start..stop of the last axis (start, stop)"

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """That of the input."""
        return inputs[0].range, []

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """A view."""
        return inputs[0][..., node.attributes["start"] : node.attributes["stop"]]
