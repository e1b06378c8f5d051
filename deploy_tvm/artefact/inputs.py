"""Random inputs of programs, for comparisons and benchmarks."""

from __future__ import annotations

import numpy as np

from irnn.errors import IrnnError
from irnn.program import Program


def random_input(program: Program, steps: int, seed: int = 2) -> np.ndarray:
    """``[1, steps, *shape]``: ids or quantized features over their whole range, standard normal ones for float."""
    if len(program.inputs) != 1:
        raise IrnnError(f"this program reads {', '.join(program.inputs)}: measured is what has one input")
    (array,) = random_inputs(program, {"time": steps}, seed).values()
    return array


def random_inputs(program: Program, sizes: dict[str, int], seed: int = 2) -> dict[str, np.ndarray]:
    """The same for several inputs, all of full length; ``sizes`` are those of the axes."""
    random = np.random.default_rng(seed)
    inputs = {}
    for name, value in program.inputs.items():
        shape = (1, *(sizes[axis] for axis in value.axes), *value.shape)
        if value.counts is not None:
            inputs[name] = np.full(1, sizes[value.counts], np.int32)
        elif value.low is None:
            inputs[name] = random.standard_normal(shape).astype(value.dtype)
        else:
            inputs[name] = random.integers(value.low, value.high, shape, endpoint=True).astype(value.dtype)
    return inputs


def by_steps(program: Program) -> bool:
    """Whether a sequence may be cut: calls of some steps each, one after the other, give what one call gives.

    A program that looks ahead, whose result is one for the whole sequence or that is told its length takes it whole.
    """
    whole = any(value.counts == "time" for value in program.inputs.values())
    along = all("time" in program.values[name].axes for name in program.outputs)
    return program.streaming and along and not whole
