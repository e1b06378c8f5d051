"""A matrix product with int32 accumulators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from irnn.arithmetic.fixed_point import INT32_MAX
from irnn.program.graph import INTEGER_DTYPES, Node, Tensor, Value
from irnn.program.ops.base import Array, Operand, Operation, Range
from irnn.program.ops.constants import weight_problems

OPERAND_DTYPES = ("int8", "int16")


class Linear(Operation):
    """See ``documentation``."""

    name = "linear"
    documentation = (
        "x (int8, or int16 where the accumulator is proved) -> `[weight] x + [bias]`, int32; the bias holds the "
        "zero-point correction"
    )

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """Sums of the row's extreme products.

        The accumulator passes through partial sums, so the bound of int32 is on the sum of magnitudes, bias first or
        last.
        """
        (x,) = inputs
        weight, bias = (tensors[role].data.astype(np.int64) for role in ("weight", "bias"))
        problems = weight_problems(node, tensors, "weight")
        if x.value.dtype not in OPERAND_DTYPES:
            problems.append(f"linear {node.output} reads {x.name}, which is not {' or '.join(OPERAND_DTYPES)}")
        positive, negative = np.maximum(weight, 0).sum(1), np.minimum(weight, 0).sum(1)
        reach = (positive - negative) * x.magnitude + np.abs(bias)
        if reach.max() > INT32_MAX:
            row = int(reach.argmax())
            problems.append(f"linear {node.output} could overflow int32 in row {row} (reach {int(reach.max())})")
        low = positive * x.low + negative * x.high + bias
        high = positive * x.high + negative * x.low + bias
        return (int(low.min()), int(high.max())), problems

    def format_version(self, node: Node, values: Mapping[str, Value]) -> int:
        """Version 1 knows int8 operands alone."""
        return 2 if values[node.inputs[0]].dtype == "int16" else 1

    def constants(
        self, ops: Any, node: Node, values: Mapping[str, Value], tensors: Mapping[str, Tensor], device: Any
    ) -> dict[str, Array]:
        """The weight as :meth:`apply` multiplies it, for the largest magnitude that the operand's dtype can hold."""
        magnitude = -INTEGER_DTYPES[values[node.inputs[0]].dtype][0]
        return {
            "weight": ops.weight(tensors["weight"].data, magnitude, device),
            "bias": ops.constant(tensors["bias"].data, device),
        }

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """Exact products, int32 sums."""
        return ops.matmul(inputs[0], tensors["weight"]) + tensors["bias"]
