"""The end of a sequence: one value of each, for a classifier's head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range, length_problems, sequence_problems


class Last(Operation):
    """See ``documentation``."""

    name = "last"
    documentation = (
        "sequence, lengths -> the last valid step of each sequence, a value without the time axis; without lengths the "
        "last step"
    )

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """That of the sequence."""
        problems = [problem for lengths in inputs[1:] for problem in length_problems(node.output, lengths)]
        return inputs[0].range, [*problems, *sequence_problems(node, inputs[0])]

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """``[batch, time, *shape]`` -> ``[batch, *shape]``; nothing is computed."""
        if len(inputs) == 1:
            return inputs[0][:, -1]
        sequence, lengths = inputs
        return ops.steps(sequence, lengths - 1)
