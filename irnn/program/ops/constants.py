"""Proofs about constants that several operations share: factors, tables, weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from irnn.arithmetic.fixed_point import MULTIPLIER_MAX, MULTIPLIER_MIN, SHIFT_MAX, SHIFT_MIN
from irnn.program.graph import Node, Tensor

TABLE_SHIFTS = (8, 24)


def factor_problems(node: Node, tensors: Mapping[str, Tensor]) -> list[str]:
    """Multipliers and shifts within the bounds of ``rescale``."""
    problems = []
    for role, tensor in tensors.items():
        low, high = tensor.data.min(), tensor.data.max()
        if role.startswith("multiplier") and (low < MULTIPLIER_MIN or high > MULTIPLIER_MAX):
            problems.append(f"{node.tensors[role]}: multipliers must lie in [2**30, 2**31)")
        if role.startswith("shift") and (low < SHIFT_MIN or high > SHIFT_MAX):
            problems.append(f"{node.tensors[role]}: shifts must lie in [{SHIFT_MIN}, {SHIFT_MAX}]")
    return problems


def table_problems(node: Node, tensors: Mapping[str, Tensor], shift: int, lowest: int) -> list[str]:
    """A piecewise-linear table whose knots ascend from the smallest input on, with a shift that was counted for."""
    name, knots = node.tensors["knots"], tensors["knots"].data.astype(np.int64)
    problems = []
    if np.any(np.diff(knots) <= 0):
        problems.append(f"{name}: knots must ascend")
    if not TABLE_SHIFTS[0] <= shift <= TABLE_SHIFTS[1]:
        problems.append(f"{node.output}: the shift of a table must lie in {list(TABLE_SHIFTS)}")
    if lowest < knots[0]:
        problems.append(f"{node.op} {node.output} reads {lowest}, below its first knot {int(knots[0])}")
    return problems


def weight_problems(node: Node, tensors: Mapping[str, Tensor], role: str) -> list[str]:
    """Weights are symmetric: within ``+-(2**(bits - 1) - 1)``."""
    tensor = tensors[role]
    if np.abs(tensor.data.astype(np.int64)).max() > 2 ** (tensor.bits - 1) - 1:
        return [f"{node.tensors[role]}: a weight leaves the range of its {tensor.bits} bits"]
    return []
