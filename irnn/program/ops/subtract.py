"""A difference of narrow values, each at its own scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.arithmetic import fixed_point
from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range, attribute_range
from irnn.program.ops.constants import factor_problems


class Subtract(Operation):
    """See ``documentation``."""

    name = "subtract"
    documentation = (
        "a - b; integer programs: narrow values -> `clamp(rescale(a - zero_points[0], [multiplier_0], [shift_0]) + "
        "rescale(zero_points[1] - b, [multiplier_1], [shift_1]) + zero_point)` (zero_points, zero_point, low, high)"
    )

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """It saturates; what is taken off a narrow value leaves int32 room for it."""
        problems = factor_problems(node, tensors)
        problems += [
            f"subtract {node.output} reads {x.name}, which is not int8 or int16"
            for x in inputs
            if x.value.dtype not in ("int8", "int16")
        ]
        return attribute_range(node), problems

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """``fixed_point.subtract``."""
        a = node.attributes
        terms = [
            (x, a["zero_points"][k], tensors[f"multiplier_{k}"], tensors[f"shift_{k}"]) for k, x in enumerate(inputs)
        ]
        return fixed_point.subtract(ops, terms[0], terms[1], a["zero_point"], a["low"], a["high"], dtype)
