"""The smaller of two values that live at one scale and zero point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range


class Minimum(Operation):
    """See ``documentation``."""

    name = "minimum"
    documentation = "the smaller of two values of one dtype, scale and zero point"

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """Between the two."""
        x, y = inputs
        problems = [] if x.value.dtype == y.value.dtype else [f"minimum {node.output} compares two dtypes"]
        return (min(x.low, y.low), min(x.high, y.high)), problems

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """No rounding."""
        x, y = inputs
        return ops.where(x <= y, x, y)
