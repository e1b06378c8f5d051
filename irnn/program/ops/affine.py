"""A factor and a summand for each element."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from irnn.arithmetic import fixed_point
from irnn.arithmetic.fixed_point import INT32_MAX
from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range


class Affine(Operation):
    """See ``documentation``."""

    name = "affine"
    documentation = (
        "x -> `[gain] x + [bias]`, element by element; integer programs: of x - zero_point, int32 (zero_point)"
    )

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """The extreme products of each element, and the bound of int32 on the product before the bias too."""
        (x,), zero_point = inputs, node.attributes["zero_point"]
        size = x.value.shape[-1]
        gain, bias = (tensors[role].data.astype(np.int64) for role in ("gain", "bias"))
        problems = []
        if x.value.dtype not in ("int8", "int16"):
            problems.append(f"affine {node.output} reads {x.name}, which is not int8 or int16")
        if tensors["gain"].encoding not in ("int8", "int16"):
            problems.append(f"{node.tensors['gain']}: a gain is {tensors['gain'].encoding}; allowed are int8 and int16")
        if {len(gain), len(bias)} != {size}:
            problems.append(
                f"affine {node.output}: {x.name} has {size} elements, its constants {len(gain)}, {len(bias)}"
            )
            return (0, 0), problems
        ends = np.stack([gain * (end - zero_point) for end in x.range])
        if (np.abs(ends) + np.abs(bias)).max() > INT32_MAX:
            problems.append(f"affine {node.output} could overflow int32")
        return (int((ends + bias).min()), int((ends + bias).max())), problems

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """``fixed_point.affine``."""
        return fixed_point.affine(ops, inputs[0], node.attributes["zero_point"], tensors["gain"], tensors["bias"])
