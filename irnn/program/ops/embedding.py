"""Rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range
from irnn.program.ops.constants import weight_problems


class Embedding(Operation):
    """See ``documentation``."""

    name = "embedding"
    documentation = "ids -> rows of [table]"

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """The table's own smallest and largest."""
        table = tensors["table"].data
        return (int(table.min()), int(table.max())), weight_problems(node, tensors, "table")

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """One row an id."""
        return ops.to(ops.take(tensors["table"], inputs[0]), dtype)
