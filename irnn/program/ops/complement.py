"""One minus a gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.arithmetic import fixed_point
from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range


class Complement(Operation):
    """See ``documentation``."""

    name = "complement"
    documentation = "1 - x; integer programs: x -> -1 - x, int8, of a sigmoid gate (zero point -128): 255 - x'"

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """The input's, mirrored at -1/2: int8 stays int8."""
        (x,) = inputs
        problems = [] if x.value.dtype == "int8" else [f"complement {node.output} reads {x.name}, which is not int8"]
        return (-1 - x.high, -1 - x.low), problems

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """``fixed_point.complement``."""
        return fixed_point.complement(ops, inputs[0])
