"""Accumulators and products to a narrow integer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.arithmetic import fixed_point
from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range, attribute_range
from irnn.program.ops.constants import factor_problems


class Requantize(Operation):
    """See ``documentation``."""

    name = "requantize"
    documentation = (
        "int32 values -> `clamp(sum rescale(x_k, [multiplier_k], [shift_k]) + zero_point)` (zero_point, low, high)"
    )
    float_programs = False

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """It saturates."""
        return attribute_range(node), factor_problems(node, tensors)

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """``fixed_point.requantize``."""
        terms = [(x, tensors[f"multiplier_{k}"], tensors[f"shift_{k}"]) for k, x in enumerate(inputs)]
        a = node.attributes
        return fixed_point.requantize(ops, terms, a["zero_point"], a["low"], a["high"], dtype)
