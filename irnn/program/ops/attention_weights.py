"""Scores of a memory's places, as unnormalized weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from irnn.arithmetic import fixed_point
from irnn.arithmetic.fixed_point import EXP_ONE, INT32_MAX
from irnn.program.graph import Node, Tensor, Value
from irnn.program.ops.base import Array, Operand, Operation, Range, length_problems
from irnn.program.ops.constants import factor_problems, table_problems, weight_problems
from irnn.program.ops.softmax_mean import exp_problems

TANH_MAGNITUDE = 128  # tanh is int8


class AttentionWeights(Operation):
    """See ``documentation``."""

    name = "attention_weights"
    documentation = (
        "query `[size]`, keys `[memory, size]`, lengths -> uint16 `[memory]`, 0 in the padding: "
        "`score = [weight] tanh(query + keys)`, tanh by [knots], [slopes], [intercepts], then [table] at "
        "`clamp(rescale(max - score, [multiplier], [shift]), 0, 255)` "
        "(low, high of the sum; tanh_shift, tanh_low, tanh_high)"
    )

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """Entries of the table; the difference of any two scores fits int32."""
        (query, keys, lengths), a = inputs, node.attributes
        problems = [
            *factor_problems(node, tensors),
            *weight_problems(node, tensors, "weight"),
            *table_problems(node, tensors, a["tanh_shift"], a["low"]),
            *length_problems(node.output, lengths),
        ]
        problems += [
            f"{node.op} {node.output} reads {x.name}, which is not int16"
            for x in (query, keys)
            if x.value.dtype != "int16"
        ]
        problems += exp_problems(node.tensors["table"], tensors["table"].data)
        weight = np.abs(tensors["weight"].data.astype(np.int64))
        if 2 * int(weight.sum()) * max(abs(a["tanh_low"]), abs(a["tanh_high"])) > INT32_MAX:
            problems.append(f"{node.output}: the difference of two scores could overflow int32")
        return (0, EXP_ONE), problems

    def constants(
        self, ops: Any, node: Node, values: Mapping[str, Value], tensors: Mapping[str, Tensor], device: Any
    ) -> dict[str, Array]:
        """The weight as a matrix product takes it."""
        prepared = super().constants(ops, node, values, tensors, device)
        return prepared | {"weight": ops.weight(tensors["weight"].data, TANH_MAGNITUDE, device)}

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """``fixed_point.attention_weights`` of the scores."""
        (query, keys, lengths), a = inputs, node.attributes
        both_i16 = fixed_point.add(ops, keys, query[..., None, :], a["low"], a["high"], "int16")
        tanh_i8 = fixed_point.pwl(
            ops, both_i16, tensors["knots"], tensors["slopes"], tensors["intercepts"], a["tanh_shift"], a["tanh_low"],
            a["tanh_high"], "int8",
        )  # fmt: skip
        score_i32 = ops.matmul(tanh_i8, tensors["weight"])[..., 0]
        valid = ops.valid(lengths, keys.shape[1])
        return fixed_point.attention_weights(
            ops, score_i32, valid, tensors["table"], tensors["multiplier"], tensors["shift"]
        )
