"""The larger of two values that live at one scale and zero point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range


class Maximum(Operation):
    """See ``documentation``."""

    name = "maximum"
    documentation = "the larger of two values of one dtype, scale and zero point"

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """Between the two."""
        x, y = inputs
        problems = [] if x.value.dtype == y.value.dtype else [f"maximum {node.output} compares two dtypes"]
        return (max(x.low, y.low), max(x.high, y.high)), problems

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """No rounding."""
        x, y = inputs
        return ops.where(x <= y, y, x)
