"""One fixed step of a sequence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range, sequence_problems


class Step(Operation):
    """See ``documentation``."""

    name = "step"
    documentation = (
        "sequence -> its step (index), a value without the time axis; below 0 from the end of the axis, where padding "
        "may lie: `last` knows lengths"
    )

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """That of the sequence."""
        return inputs[0].range, sequence_problems(node, inputs[0])

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """``[batch, time, *shape]`` -> ``[batch, *shape]``; nothing is computed."""
        return inputs[0][:, node.attributes["index"]]
