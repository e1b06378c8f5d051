"""The weighted mean of a memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.arithmetic import fixed_point
from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range, attribute_range
from irnn.program.ops.constants import factor_problems


class AttentionContext(Operation):
    """See ``documentation``."""

    name = "attention_context"
    documentation = (
        "weights `[memory]`, values `[memory, size]` -> their weighted mean `[size]`, requantized by [multiplier], "
        "[shift] (zero_point_values, zero_point, low, high)"
    )

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """It saturates; the bounds of ``fixed_point.attention_context`` hold for these dtypes."""
        problems = factor_problems(node, tensors)
        weights, values = (x.value.dtype for x in inputs)
        if (weights, values) != ("uint16", "int8"):
            problems.append(f"{node.op} {node.output} reads {weights} and {values}, not uint16 and int8")
        return attribute_range(node), problems

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """``fixed_point.attention_context``."""
        (weights, values), a = inputs, node.attributes
        context = fixed_point.attention_context(
            ops, weights[..., None, :], values.swapaxes(-1, -2), a["zero_point_values"], tensors["multiplier"],
            tensors["shift"], a["zero_point"], a["low"], a["high"], dtype,
        )  # fmt: skip
        return context[..., 0]
