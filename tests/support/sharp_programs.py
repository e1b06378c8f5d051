"""Small fixed programs in which one wrong step of any rounding, table or norm shows, with what the oracle says."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from irnn.program import Program
from tests.support.oracle import mad_normalized, read_network, standardized
from tests.support.random_programs import Spec, random_inputs, random_program, random_state, with_tensors


def power_of_two_factors(program: Program) -> Program:
    """Every factor a power of two: half of all roundings are then near ties, and many are exact ones."""
    changed = {
        name: np.full_like(tensor.data, 1 << 30) for name, tensor in program.tensors.items() if "multiplier" in name
    }
    return with_tensors(program, changed)


def hot_cell(program: Program) -> Program:
    """Both terms of the cell update may leave int16 by themselves, and their sum come back."""
    changed = {
        name: tensor.data - 2 for name, tensor in program.tensors.items() if name.endswith((".c.shift_0", ".c.shift_1"))
    }
    return with_tensors(program, changed)


def uneven_factor(program: Program) -> Program:
    """A forget factor near sqrt(2) / 512: over enough full-range cell states, an error of 2**-11 steps turns one.

    (1/255 or 1/256 would hide it: no multiple of theirs comes so near to a tie.)
    """
    changed = {"layer0.forward.c.multiplier_0": np.int32([1518500312]), "layer0.forward.c.shift_0": np.int32([39])}
    return with_tensors(program, changed)


def steps_at_knots(program: Program) -> Program:
    """Tables in which the value jumps at each knot, and preactivations that are knots: gates' inputs are the biases."""
    changed: dict[str, np.ndarray] = {}
    for name, tensor in program.tensors.items():
        if name.endswith(".weight") and not name.startswith("logits"):
            changed[name] = np.zeros_like(tensor.data)
        elif name.endswith((".pre.multiplier_0", ".pre.shift_0")):
            changed[name] = np.full_like(tensor.data, 1 << 30 if "multiplier" in name else 30)
        elif name.endswith(".h.bias"):
            changed[name] = np.zeros_like(tensor.data)
        elif name.endswith(".x.bias"):
            hidden = len(tensor.data) // 4
            prefix = name.removesuffix(".x.bias")
            knots = [program.tensors[f"{prefix}.{gate}.knots"].data for gate in ("i", "f", "j", "o")]
            changed[name] = np.concatenate([np.resize(k, hidden) for k in knots]).astype(np.int32)
        elif name.endswith(".intercepts"):
            jumps = np.where(np.arange(len(tensor.data)) % 2, 100 << 14, -100 << 14)
            changed[name] = jumps.astype(np.int32)
    return with_tensors(program, changed)


def amplified_norm(norm: str, row: list[int]) -> Program:
    """W_x x + b is ``row`` in each gate; gamma and beta blow up any error of the normalized value, be it one step."""
    expected = (mad_normalized if norm == "mad" else standardized)(row)
    hidden = len(row)
    program = random_program(Spec(hidden=hidden, input_size=1, norm=norm, logits=None, seed=4))
    gain = 9000
    rows = {
        "x.weight": np.zeros((4 * hidden, 1), "int8"),
        "x.bias": np.array(row * 4, "int32"),
        "x.pre.multiplier_0": np.int32([1 << 30]),
        "x.pre.shift_0": np.int32([30]),
        "x.norm.gamma": np.full(4 * hidden, gain, "int16"),
        "x.norm.beta": np.array([-gain * t for t in expected] * 4, "int32"),
        "x.norm.multiplier": np.full(4, 1 << 30, "int32"),
        "x.norm.shift": np.full(4, 30, "int32"),
        "h.weight": np.zeros((4 * hidden, hidden), "int8"),
        "h.bias": np.zeros(4 * hidden, "int32"),
    }
    return with_tensors(program, {f"layer0.forward.{name}": data for name, data in rows.items()})


def sharp_mad_row(hidden: int) -> list[int]:
    """A row normalized elements of which change with the last bit of the reciprocal, in either direction."""

    def values(u: np.ndarray, bits: int, more: int) -> np.ndarray:
        reciprocal = (hidden << bits) // int(np.abs(u).sum()) + more
        return (u * reciprocal + (1 << (bits - 11))) >> (bits - 10)

    return _search(hidden, lambda u, _: [values(u, bits, more) for bits, more in ((48, 0), (47, 0), (48, 1))])


def sharp_layer_row(hidden: int) -> list[int]:
    """The same for LayerNorm's reciprocal of the root."""

    def values(u: np.ndarray, root: int, bits: int) -> np.ndarray:
        return (u * ((1 << bits) // root) + (1 << (bits - 16))) >> (bits - 15)

    return _search(hidden, lambda u, root: [values(u, root, bits) for bits in (59, 58)])


def _search(hidden: int, candidates: Callable[[np.ndarray, int], list[np.ndarray]]) -> list[int]:
    """The first of a fixed sequence of rows for which every candidate but the first differs from the first."""
    rng = np.random.default_rng(0)
    for _ in range(200_000):
        row = rng.integers(-32768, 32767, hidden)
        u = hidden * row - row.sum()
        root = math.isqrt((hidden * int((row * row).sum()) - int(row.sum()) ** 2) << 10)
        right, *wrong = candidates(u, root)
        if all((w != right).any() for w in wrong):
            return row.tolist()
    raise AssertionError("no such row in the sequence")


@dataclass(frozen=True)
class Case:
    """A program with inputs, a state and what the oracle says."""

    program: Program
    inputs: np.ndarray
    state: dict[str, np.ndarray] | None
    output: np.ndarray
    last: dict[str, np.ndarray]


def make_case(program: Program, batch: int, steps: int, *, fresh: bool = False) -> Case:
    inputs = random_inputs(program, batch, steps)
    state = None if fresh else random_state(program, batch)
    lists = None if state is None else {name: array.tolist() for name, array in state.items()}
    output, last = read_network(program).run_batch(inputs.tolist(), lists)
    return Case(program, inputs, state, np.array(output), {name: np.array(rows) for name, rows in last.items()})


@cache
def cases() -> list[Case]:
    return [
        make_case(random_program(Spec()), 2, 5),
        make_case(random_program(Spec(norm="mad", layers=2, seed=1)), 2, 4, fresh=True),
        make_case(random_program(Spec(norm="layer", bidirectional=True, layers=2, seed=2)), 2, 4, fresh=True),
        make_case(random_program(Spec(extreme=True, wide_tables=True, seed=3)), 2, 5),
        make_case(random_program(Spec(hidden=1, norm="mad", seed=4)), 2, 3),
        make_case(random_program(Spec(hidden=1, norm="layer", seed=5)), 2, 3),
        make_case(power_of_two_factors(random_program(Spec(hidden=24, seed=6))), 3, 8),
        make_case(hot_cell(random_program(Spec(hidden=5, seed=7))), 2, 8),
        make_case(steps_at_knots(random_program(Spec(hidden=18, logits=None, seed=8))), 1, 2),
        make_case(random_program(Spec(pieces=1, seed=9)), 2, 3),
        make_case(uneven_factor(random_program(Spec(hidden=32, input_size=2, logits=None, seed=10))), 300, 1),
        # One outlier: the normalized value, 45 deviations, saturates.
        make_case(amplified_norm("mad", [20000] + [0] * 89), 1, 1),
        # A spread so small that the floor of the root shows.
        make_case(amplified_norm("layer", [1, 0, 0, 0, 0, 0, 1]), 1, 1),
        make_case(amplified_norm("layer", sharp_layer_row(512)), 1, 1, fresh=True),
        make_case(amplified_norm("mad", sharp_mad_row(1024)), 1, 1, fresh=True),
    ]
