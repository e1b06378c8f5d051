"""Values side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range


class Concat(Operation):
    """See ``documentation``."""

    name = "concat"
    documentation = "values joined along the last axis"

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """The hull of the inputs'."""
        return (min(x.low for x in inputs), max(x.high for x in inputs)), []

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """Along the last axis."""
        return ops.concat(inputs)
