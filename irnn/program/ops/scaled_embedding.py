"""Rows of a table whose rows have scales of their own, and of which there may be several planes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.arithmetic import fixed_point
from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range, attribute_range
from irnn.program.ops.constants import factor_problems, weight_problems


class ScaledEmbedding(Operation):
    """See ``documentation``."""

    name = "scaled_embedding"
    documentation = (
        "ids -> `clamp(sum rescale([table_k][id], [multiplier_k][id], [shift_k][id]))` over `planes` tables; a factor "
        "a row (planes, low, high)"
    )
    float_programs = False

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """It saturates; each row of each table has its factor."""
        problems = factor_problems(node, tensors)
        for k in range(node.attributes["planes"]):
            problems += weight_problems(node, tensors, f"table_{k}")
            rows = len(tensors[f"table_{k}"].data)
            problems += [
                f"{node.tensors[role]}: {tensors[role].data.size} factors for the {rows} rows of a table"
                for role in (f"multiplier_{k}", f"shift_{k}")
                if tensors[role].data.shape != (rows,)
            ]
        return attribute_range(node), problems

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """Each plane's row and factor, then ``fixed_point.requantize``."""
        (ids,), a = inputs, node.attributes

        def term(k: int) -> tuple[Array, Array, Array]:
            row, *factor = (ops.take(tensors[f"{role}_{k}"], ids) for role in ("table", "multiplier", "shift"))
            multiplier, shift = (part.reshape(*part.shape, 1) for part in factor)
            return row, multiplier, shift

        return fixed_point.requantize(ops, [term(k) for k in range(a["planes"])], 0, a["low"], a["high"], dtype)
