"""A sequence's mean, weighted by the softmax of its steps' scores: attention pooling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from irnn.arithmetic import fixed_point
from irnn.arithmetic.fixed_point import EXP_ENTRIES, EXP_ONE
from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range, attribute_range, length_problems, row_problems
from irnn.program.ops.constants import factor_problems


class SoftmaxMean(Operation):
    """See ``documentation``."""

    name = "softmax_mean"
    documentation = (
        "score `[1]` and values `[size]`, sequences, lengths -> `[size]`, a value without the time axis: the mean of "
        "the valid steps, without lengths of all of them, weighted by [table] at `clamp(rescale(max - score, "
        "[multiplier], [shift]), 0, 255)`, requantized by [multiplier_mean], [shift_mean] (zero_point_values, "
        "zero_point, low, high)"
    )

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """It saturates; the difference of two scores of 16 bits fits int32, as ``attention_context`` takes int8."""
        score, values, *lengths = inputs
        problems = [
            *factor_problems(node, tensors),
            *row_problems(node, score),
            *row_problems(node, values),
            *(p for n in lengths for p in length_problems(node.output, n)),
        ]
        if score.value.shape != (1,) or score.value.axes != values.value.axes:
            problems.append(f"{node.op} {node.output}: {score.name} is no score of each step of {values.name}")
        if (score.value.dtype, values.value.dtype) != ("int16", "int8"):
            found = f"{score.value.dtype} and {values.value.dtype}"
            problems.append(f"{node.op} {node.output} reads {found}, not int16 and int8")
        return attribute_range(node), problems + exp_problems(node.tensors["table"], tensors["table"].data)

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """``fixed_point.attention_weights``, then ``fixed_point.attention_context``, along time."""
        (score, values, *lengths), a = inputs, node.attributes
        valid = ops.valid(lengths[0], score.shape[1])[:, None] if lengths else None
        e_u16 = fixed_point.attention_weights(
            ops, ops.to(score.swapaxes(1, 2), "int32"), valid, tensors["table"], tensors["multiplier"], tensors["shift"]
        )
        (e_u16,) = ops.keep([e_u16])  # read again for every element of the mean
        mean = fixed_point.attention_context(
            ops, e_u16, values.swapaxes(1, 2), a["zero_point_values"], tensors["multiplier_mean"],
            tensors["shift_mean"], a["zero_point"], a["low"], a["high"], dtype,
        )  # fmt: skip
        return mean[..., 0]


def exp_problems(name: str, table: np.ndarray) -> list[str]:
    """The table of exp(-x) falls from 65535 to 0, so that the best place counts and a far one does not."""
    ends = (EXP_ONE, 0)
    if table.shape == (EXP_ENTRIES,) and (table[0], table[-1]) == ends and not np.any(np.diff(table.astype(int)) > 0):
        return []
    return [f"{name}: exp takes {EXP_ENTRIES} entries that fall from {EXP_ONE} to 0"]
