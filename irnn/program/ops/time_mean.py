"""The mean of a sequence over its steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.arithmetic import fixed_point
from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range, length_problems, row_problems


class TimeMean(Operation):
    """See ``documentation``."""

    name = "time_mean"
    documentation = (
        "sequence, lengths -> the mean over the valid steps, without lengths over all of them, a value without the "
        "time axis; integer programs: of x - zero_point, int32 with 8 fractional bits (zero_point)"
    )

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """A mean lies between the ends of what it is taken of."""
        x, *lengths = inputs
        problems = [*row_problems(node, x), *(p for n in lengths for p in length_problems(node.output, n))]
        if x.value.dtype not in ("int8", "int16"):
            problems.append(f"time_mean {node.output} reads {x.name}, which is not int8 or int16")
        low, high = ((end - node.attributes["zero_point"]) << fixed_point.MEAN_FRACTION_BITS for end in x.range)
        return (low, high), problems

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """``fixed_point.mean`` of each element's steps."""
        x, *lengths = inputs
        steps = x.shape[1]
        rows_i64 = ops.to(x.swapaxes(1, 2), "int64") - ops.to(node.attributes["zero_point"], "int64")
        if not lengths:
            return fixed_point.mean(ops, ops.row_sum(rows_i64), ops.to(steps, "int64"))[..., 0]
        valid = ops.valid(lengths[0], steps)[:, None]
        total_i64 = ops.row_sum(ops.where(valid, rows_i64, ops.to(0, "int64")))
        return fixed_point.mean(ops, total_i64, ops.to(lengths[0], "int64")[:, None, None])[..., 0]
