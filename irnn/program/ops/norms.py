"""MadNorm and LayerNorm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from irnn.arithmetic import fixed_point
from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range, attribute_range
from irnn.program.ops.constants import factor_problems

GAMMA_MAX, BETA_MAX = 32767, 1 << 30


class Norm(Operation):
    """What both share; ``name`` is also that of the function of ``fixed_point``."""

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """It saturates; the bounds of ``fixed_point`` hold for int16, rows that are not too long, gamma and beta."""
        (x,) = inputs
        problems = factor_problems(node, tensors)
        if np.abs(tensors["beta"].data.astype(np.int64)).max() > BETA_MAX:
            problems.append(f"{node.tensors['beta']}: beta must lie within +-2**30")
        if tensors["gamma"].data.min() < -GAMMA_MAX:
            problems.append(f"{node.tensors['gamma']}: gamma must lie within +-{GAMMA_MAX}")
        if x.value.dtype not in ("int8", "int16"):
            problems.append(f"{node.op} {node.output} reads {x.name}, which is not int16")
        length = x.value.shape[-1] // node.attributes["groups"]
        if length > fixed_point.NORM_LENGTH_MAX:
            problems.append(f"{node.op} {node.output} is over {length} elements, at most {fixed_point.NORM_LENGTH_MAX}")
        return attribute_range(node), problems

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """``fixed_point.mad_norm`` or ``layer_norm`` of each group."""
        (x,), a = inputs, node.attributes
        groups = a["groups"]
        length = x.shape[-1] // groups
        gamma, beta = (tensors[role].reshape(groups, length) for role in ("gamma", "beta"))
        multiplier, shift = (tensors[role].reshape(groups, 1) for role in ("multiplier", "shift"))
        rows = x.reshape(*x.shape[:-1], groups, length)
        evaluate = getattr(fixed_point, self.name)
        y = evaluate(ops, rows, length, gamma, beta, multiplier, shift, a["low"], a["high"], dtype)
        return y.reshape(x.shape)


class MadNorm(Norm):
    """By the mean absolute deviation."""

    name = "mad_norm"
    documentation = (
        "MadNorm over each of `groups` equal parts [gamma], [beta], [multiplier], [shift] (groups, low, high)"
    )


class LayerNorm(Norm):
    """By the standard deviation."""

    name = "layer_norm"
    documentation = "the same with the standard deviation, by an integer square root"
