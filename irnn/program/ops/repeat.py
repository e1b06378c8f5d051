"""A value at every step of a sequence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range, sequence_problems


class Repeat(Operation):
    """See ``documentation``."""

    name = "repeat"
    documentation = "a value without the time axis, a sequence -> the value at every step of the sequence's axis"

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """That of the value."""
        value, like = inputs
        problems = sequence_problems(node, like)
        if value.value.axes:
            problems.append(f"repeat {node.output} reads {value.name}, which is a sequence already")
        return value.range, problems

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """``[batch, *shape]`` -> ``[batch, time, *shape]``; of the sequence only its steps are counted."""
        value, like = inputs
        return ops.stack([value] * like.shape[1])
