"""From real numbers to a program's integers and back: inputs, outputs and states.

A program of a captured network notes in its metadata how that network has its axes (``inputs`` and ``outputs``: for
each tensor ``dims``, the axes that each dimension runs over, and ``features``, the sizes of what a program has flat);
its tensors are then taken and given as the network's.  Without a note they are ``[batch, time, *shape]``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from irnn.errors import IrnnError
from irnn.program.graph import Graph, Scan, Value

Arrays = np.ndarray | dict[str, np.ndarray]


def quantize(graph: Graph, x: Any) -> Arrays:
    """Real inputs, or a state -> what ``run`` takes of them: an array, or a dict where names are given or needed."""
    if isinstance(x, Mapping) and set(x) == set(graph.states):
        return {name: quantize_state(graph, name, np.asarray(value)) for name, value in x.items()}
    names = list(graph.inputs)
    if isinstance(x, Mapping):
        if set(x) != set(names):
            raise IrnnError(
                f"{sorted(x)} are no names of inputs or states; inputs are {names}, states {list(graph.states)}"
            )
        return {name: _input(graph, name, x[name]) for name in names}
    given = x if isinstance(x, (tuple, list)) else (x,)
    if len(given) != len(names):
        states = f"; states are given to run, as a dict of {list(graph.states)}" if graph.states else ""
        raise IrnnError(
            f"{len(given)} arrays for the inputs {names}; give one for each, in this order, or a dict by name{states}"
        )
    found = {name: _input(graph, name, value) for name, value in zip(names, given, strict=True)}
    return found if len(names) > 1 else found[names[0]]


def dequantize(graph: Graph, y: Any) -> Arrays:
    """The first output's integers, all outputs' (a list), a dict of outputs or a state -> real numbers, float32."""
    if isinstance(y, Mapping):
        if not set(y) <= {*graph.states, *graph.outputs}:
            raise IrnnError(f"{sorted(y)} are no names of outputs {list(graph.outputs)} or states {list(graph.states)}")
        return {
            name: _real(_state_value(graph, name), value) if name in graph.states else _output(graph, name, value)
            for name, value in y.items()
        }
    if isinstance(y, (tuple, list)):
        return dequantize(graph, dict(zip(graph.outputs, y, strict=True)))
    return _output(graph, graph.outputs[0], y)


def _state_value(graph: Graph, name: str) -> Value:
    """What the integers of a state mean: those of the value that holds it within its scan."""
    scans = [item for item in graph.nodes if isinstance(item, Scan) and name in item.states]
    value = graph.values[scans[0].states[name][0]]
    limits = np.iinfo(value.dtype)
    return Value(value.dtype, value.shape, value.scale, value.zero_point, int(limits.min), int(limits.max), ())


def quantize_state(graph: Graph, name: str, x: np.ndarray) -> np.ndarray:
    """A real state ``[batch, size]`` as the program's integers."""
    return _state_value(graph, name).quantize(x)


def dequantize_state(graph: Graph, name: str, q: np.ndarray) -> np.ndarray:
    """The reverse, float32."""
    return _real(_state_value(graph, name), q)


def _input(graph: Graph, name: str, x: Any) -> np.ndarray:
    value, x = graph.inputs[name], np.asarray(x)
    note = graph.metadata.get("inputs", {}).get(name)
    if note is not None:
        x = _flat(name, x, note, ["time"] * len(value.axes))
        x = x if note["features"] or not value.shape else x[..., None]  # one feature, without an axis of its own
    if value.scale is not None and np.issubdtype(x.dtype, np.floating):
        return value.quantize(x)
    return x.astype(value.dtype)


def _output(graph: Graph, name: str, y: Any) -> np.ndarray:
    value = graph.values[name]
    real = _real(value, np.asarray(y))
    notes = list(graph.metadata.get("outputs", {}).values())
    return _unflat(real, notes[graph.outputs.index(name)], len(value.axes)) if notes else real


def _real(value: Value, y: Any) -> np.ndarray:
    if value.scale is None:
        raise IrnnError("this value has no single scale: only its integers are defined")
    return ((np.asarray(y, np.float64) - value.zero_point) * value.scale).astype(np.float32)


def _flat(name: str, x: np.ndarray, note: Mapping[str, Any], axes: list[str]) -> np.ndarray:
    """The network's own shape -> ``[batch, (time,) features]``."""
    sizes: list[int] = []
    if x.ndim != len(note["dims"]):
        raise IrnnError(f"input {name} has the shape {list(x.shape)}; the network takes {len(note['dims'])} dimensions")
    for dimension, size in zip(note["dims"], x.shape, strict=True):
        known = math.prod(note["features"][axis] for axis in dimension if isinstance(axis, int))
        sizes += [note["features"][axis] if isinstance(axis, int) else size // known for axis in dimension]
    order = [axis for dimension in note["dims"] for axis in dimension]
    wanted = ["batch", *axes, *range(len(note["features"]))]
    unseen = [axis for axis in wanted if axis not in order]  # the one step of a network that sees no time
    sizes, order = [*sizes, *[1] * len(unseen)], [*order, *unseen]
    x = x.reshape(sizes).transpose([order.index(axis) for axis in wanted])
    leading = 1 + len(axes)
    return x.reshape(*x.shape[:leading], -1) if note["features"] else x


def _unflat(y: np.ndarray, note: Mapping[str, Any], axes: int) -> np.ndarray:
    """The reverse."""
    order = ["batch", *["time"] * axes, *range(len(note["features"]))]
    y = y.reshape(*y.shape[: 1 + axes], *note["features"])
    flat = [axis for dimension in note["dims"] for axis in dimension]
    sizes = dict(zip(order, y.shape, strict=True))
    unseen = [axis for axis in order if axis not in flat]
    if any(sizes[axis] != 1 for axis in unseen):
        raise IrnnError(
            f"an output holds {y.shape[1]} steps, the network gives one a call: run the program step by step"
        )
    flat += unseen
    y = y.transpose([order.index(axis) for axis in flat])
    return y.reshape([math.prod(sizes[axis] for axis in dimension) for dimension in note["dims"]])
