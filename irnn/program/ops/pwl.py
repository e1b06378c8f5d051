"""A function as straight pieces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.arithmetic import fixed_point
from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range, attribute_range
from irnn.program.ops.constants import table_problems


class Pwl(Operation):
    """See ``documentation``."""

    name = "pwl"
    documentation = "piecewise-linear [knots], [slopes], [intercepts] (function, shift, low, high)"
    float_programs = False

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """It saturates."""
        return attribute_range(node), table_problems(node, tensors, node.attributes["shift"], inputs[0].low)

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """``fixed_point.pwl``."""
        a, (knots, slopes, intercepts) = node.attributes, (tensors[role] for role in ("knots", "slopes", "intercepts"))
        return fixed_point.pwl(ops, inputs[0], knots, slopes, intercepts, a["shift"], a["low"], a["high"], dtype)
