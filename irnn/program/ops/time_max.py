"""The largest of a sequence's steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.program.graph import INTEGER_DTYPES, Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range, length_problems, row_problems


class TimeMax(Operation):
    """See ``documentation``."""

    name = "time_max"
    documentation = (
        "sequence, lengths -> the largest of the valid steps, element by element, without lengths of all of them, a "
        "value without the time axis"
    )

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """That of the sequence."""
        x, *lengths = inputs
        return x.range, [*row_problems(node, x), *(p for n in lengths for p in length_problems(node.output, n))]

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """A sequence has a step, so that what stands for padding never is the result."""
        x, *lengths = inputs
        rows, steps = x.swapaxes(1, 2), x.shape[1]
        if lengths:
            valid = ops.valid(lengths[0], steps)[:, None]
            rows = ops.where(valid, rows, ops.to(INTEGER_DTYPES[dtype][0], dtype))
        return ops.row_max(rows)[..., 0]
