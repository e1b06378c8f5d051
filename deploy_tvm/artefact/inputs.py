"""Random inputs of programs, for comparisons and benchmarks, and in what pieces a program takes a sequence."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from irnn.program import Program, Value
from irnn.program.axes import Axis


def random_inputs(program: Program, sizes: dict[str, int], seed: int = 2, batch: int = 1) -> dict[str, np.ndarray]:
    """Inputs by name, ``[batch, *axes, *shape]``, of full length; ``sizes`` are those of the axes.

    Ids or quantized features over their whole range, standard normal ones for float.
    """
    random = np.random.default_rng(seed)
    inputs = {}
    for name, value in program.inputs.items():
        shape = (batch, *(sizes[axis] for axis in value.axes), *value.shape)
        if value.counts is not None:
            inputs[name] = np.full(batch, sizes[value.counts], np.int32)
        elif value.low is None:
            inputs[name] = random.standard_normal(shape).astype(value.dtype)
        else:
            inputs[name] = random.integers(value.low, value.high, shape, endpoint=True).astype(value.dtype)
    return inputs


def output_arrays(program: Program, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Arrays of zeros of the shapes and dtypes that a program's outputs have for these inputs."""
    sizes: dict[str, int] = {}
    for name, value in program.inputs.items():
        sizes |= dict(zip(("batch", *value.axes), inputs[name].shape, strict=False))

    def shape(value: Value) -> tuple[int, ...]:
        axes = (Axis.parse(name) for name in value.axes)
        return (sizes["batch"], *(axis.size(sizes[axis.root]) for axis in axes), *value.shape)

    return [np.zeros(shape(value), value.dtype) for value in (program.values[name] for name in program.outputs)]


def by_steps(program: Program) -> bool:
    """Whether a sequence may be cut: calls of some steps each, one after the other, give what one call gives.

    A program that looks ahead, whose result is one for the whole sequence or that is told its length takes it whole.
    """
    whole = any(value.counts == "time" for value in program.inputs.values())
    along = all("time" in program.values[name].axes for name in program.outputs)
    return program.streaming and along and not whole


def stepwise(program: Program) -> bool:
    """Whether steps can be streamed one by one: one input along time, whose window is known, and outputs as it is."""
    made = {len(program.values[name].axes) for name in program.outputs}
    return program.window is not None and [v.axes for v in program.inputs.values()] == [("time",)] and made == {1}
