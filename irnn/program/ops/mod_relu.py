"""ReLU of the magnitude, with the sign kept (Arjovsky, Shah and Bengio 2016, modReLU on real numbers)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from irnn.arithmetic import fixed_point
from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range

BIAS_LIMIT = 1 << 30


class ModRelu(Operation):
    """See ``documentation``."""

    name = "mod_relu"
    documentation = "sgn(x) max(|x| + [bias], 0), sgn(0) = 0; integer programs: x int8 or int16, saturating (low, high)"

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """The largest magnitude plus the largest bias, at most where it saturates; it may be 0 alone."""
        (x,) = inputs
        bias = tensors["bias"].data.astype(np.int64)
        problems = []
        if x.value.dtype not in ("int8", "int16"):
            problems.append(f"mod_relu {node.output} reads {x.name}, which is not int8 or int16")
        if x.value.zero_point:
            problems.append(f"mod_relu {node.output} reads {x.name}, which has the zero point {x.value.zero_point}")
        if bias.shape != x.value.shape[-1:]:
            problems.append(f"mod_relu {node.output}: {x.name} has {x.value.shape[-1]} elements, its bias {bias.size}")
        if np.abs(bias).max() >= BIAS_LIMIT:
            problems.append(f"{node.tensors['bias']}: a bias of mod_relu must lie within +-2**30")
        low, high = node.attributes["low"], node.attributes["high"]
        if not low <= 0 <= high:
            problems.append(f"mod_relu {node.output} saturates to {low}..{high}, which leaves out 0")
        reach = max(x.magnitude + int(bias.max()), 0)
        # What is positive stays so, and 0 is always possible.
        return (max(low, -reach if x.low < 0 else 0), min(high, reach if x.high > 0 else 0)), problems

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """``fixed_point.mod_relu``."""
        a = node.attributes
        return fixed_point.mod_relu(ops, inputs[0], tensors["bias"], a["low"], a["high"], dtype)
