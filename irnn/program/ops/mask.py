"""Padding set to the integer of 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range, length_problems


class Mask(Operation):
    """See ``documentation``."""

    name = "mask"
    documentation = "sequence, lengths -> the sequence with padding set to (fill), the integer of 0"

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """The input's, with the filling."""
        x, lengths = inputs
        fill = node.attributes["fill"]
        return (min(x.low, fill), max(x.high, fill)), length_problems(node.output, lengths)

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """Steps behind a sequence's length are filled."""
        x, lengths = inputs
        valid = ops.valid(lengths, x.shape[1])
        valid = valid.reshape(*valid.shape, *[1] * (len(x.shape) - 2))
        return ops.where(valid, x, ops.to(node.attributes["fill"], dtype))
