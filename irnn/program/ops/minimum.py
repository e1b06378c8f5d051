"""The smaller of two values that live at one scale and zero point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range


class Minimum(Operation):
    """See ``documentation``."""

    name = "minimum"
    documentation = "the smaller of a and b, element by element; integer programs: at one dtype, scale and zero point"

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """Each end is the smaller one's."""
        a, b = inputs
        formats = [(x.value.dtype, x.value.scale, x.value.zero_point) for x in inputs]
        problems = []
        if formats[0] != formats[1]:
            said = " and ".join(f"{x.name} ({d}, scale {s}, zero point {z})"
                                for x, (d, s, z) in zip(inputs, formats, strict=True))  # fmt: skip
            problems.append(f"minimum {node.output} compares {said}: integers of two formats have no order")
        return (min(a.low, b.low), min(a.high, b.high)), problems

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """No rounding."""
        a, b = inputs
        return ops.where(a <= b, a, b)
