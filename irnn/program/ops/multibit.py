"""Codes of an activation that are found at run time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.arithmetic import run_time_codes
from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range


class Multibit(Operation):
    """See ``documentation``."""

    name = "multibit"
    documentation = (
        "x - zero_point as a sum of `codes` binary codes along the last axis, int16 with 4 fractional bits "
        "(zero_point, codes)"
    )
    float_programs = False

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """It saturates; ``run_time_codes.multibit`` is bounded for int8, rows that are not too long, few codes."""
        (x,), a = inputs, node.attributes
        problems = []
        length, reach = x.value.shape[-1], max(abs(bound - a["zero_point"]) for bound in x.range)
        if x.value.dtype != "int8":
            problems.append(f"multibit {node.output} reads {x.name}, which is not int8")
        if reach << run_time_codes.MULTIBIT_FRACTION_BITS > run_time_codes.MULTIBIT_MAX:
            problems.append(f"multibit {node.output}: {x.name} is up to {reach} from {a['zero_point']}, at most 255")
        if length > run_time_codes.MULTIBIT_LENGTH_MAX:
            most = run_time_codes.MULTIBIT_LENGTH_MAX
            problems.append(f"multibit {node.output} is over {length} elements, at most {most}")
        if not 1 <= a["codes"] <= run_time_codes.MULTIBIT_COUNT_MAX:
            most = run_time_codes.MULTIBIT_COUNT_MAX
            problems.append(f"multibit {node.output} has {a['codes']} codes, 1 to {most} are allowed")
        return (-run_time_codes.MULTIBIT_MAX, run_time_codes.MULTIBIT_MAX), problems

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """``run_time_codes.multibit``."""
        a, (x,) = node.attributes, inputs
        return run_time_codes.multibit(ops, x, x.shape[-1], a["zero_point"], a["codes"])
