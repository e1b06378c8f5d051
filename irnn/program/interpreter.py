"""Executes a program with integers only: the golden reference that every other executor must equal.

With the NumPy namespace (the default) it is the reference; ``irnn.qat`` runs the same walk with the PyTorch namespace
to evaluate a model in training, where the matrix products are exact but fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.arithmetic.numpy_ops import NUMPY
from irnn.errors import IrnnError
from irnn.program.graph import Graph, Node, Scan, Value, too_short
from irnn.program.ops import OPS


class Interpreter:
    """A program bound to an operations namespace (and, for PyTorch, a device).

    ``run`` takes and returns the namespace's arrays: NumPy by default.
    """

    def __init__(self, program: Graph, ops: Any = NUMPY, device: Any = None) -> None:
        if program.kind != "integer":
            raise IrnnError(f"the interpreter executes integer programs, this one is {program.kind!r}")
        self.program = program
        self.ops = ops
        self.device = device
        self.fewest = program.fewest
        self.constants = {node.output: self._constants(node) for node in program.walk()}

    def _constants(self, node: Node) -> dict[str, Any]:
        """The node's constants by their roles, made ready once."""
        tensors = {role: self.program.tensors[name] for role, name in node.tensors.items()}
        values = self.program.inputs | self.program.values
        return OPS[node.op].constants(self.ops, node, values, tensors, self.device)

    def run(self, inputs: Any, state: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Inputs ``[batch, time, *shape]`` (several: a dict by name) -> (the first output, the last state)."""
        outputs, state = self.run_all(inputs, state)
        return outputs[0], state

    def run_all(self, inputs: Any, state: dict[str, Any] | None = None) -> tuple[list[Any], dict[str, Any]]:
        """As :meth:`run`, with every output of the program."""
        environment = self._checked_inputs(inputs)
        batch = next(iter(environment.values())).shape[0]
        if state is None:
            state = self.program.initial_state(batch)
        state = self._checked_state(state, batch)
        for item in self.program.nodes:
            if isinstance(item, Scan):
                self._scan(item, environment, state)
            else:
                environment[item.output] = self._node(item, environment)
        return [environment[name] for name in self.program.outputs], state

    def _checked_inputs(self, inputs: Any) -> dict[str, Any]:
        """The inputs by name; their batch and the axes that they share must agree."""
        expected = self.program.inputs
        if not isinstance(inputs, Mapping):
            inputs = {next(iter(expected)): inputs}
        if set(inputs) != set(expected):
            raise IrnnError(f"inputs {sorted(inputs)} do not match the program's {sorted(expected)}")
        checked = {name: self._checked_input(name, value, inputs[name]) for name, value in expected.items()}
        sizes: dict[str, int] = {}
        for name, value in expected.items():
            for axis, size in zip(("batch", *value.axes), checked[name].shape, strict=False):
                if sizes.setdefault(axis, size) != size:
                    raise IrnnError(f"input {name} has {size} along {axis}, another input has {sizes[axis]}")
        if problem := too_short(self.fewest, sizes):
            raise IrnnError(problem)
        for name, value in expected.items():
            if value.counts is not None and int(checked[name].max()) > sizes[value.counts]:
                raise IrnnError(
                    f"input {name} holds {int(checked[name].max())}; there are only {sizes[value.counts]} along "
                    f"{value.counts}"
                )
        return checked

    def _checked_input(self, name: str, value: Value, given: Any) -> Any:
        given = self.ops.constant(given, self.device)
        shape, leading = tuple(given.shape), 1 + len(value.axes)
        if len(shape) != leading + len(value.shape) or shape[leading:] != value.shape or 0 in shape:
            axes = ", ".join(["batch", *value.axes, *map(str, value.shape)])
            raise IrnnError(f"input {name} has the shape {list(shape)}; it takes [{axes}], none of them 0")
        if not _dtype(given).startswith(("int", "uint")):
            raise IrnnError(f"input {name} is {_dtype(given)}; an integer program takes integers, {value.dtype}")
        low, high = int(given.min()), int(given.max())
        if value.low is not None and value.high is not None and not value.low <= low <= high <= value.high:
            worst = low if low < value.low else high
            raise IrnnError(f"input {name} holds {worst}; allowed are {value.low} to {value.high}")
        return given

    def _checked_state(self, state: dict[str, Any], batch: int) -> dict[str, Any]:
        """A copy.  A state of another batch size would broadcast, one of another dtype would be cut: both refused."""
        if set(state) != set(self.program.states):
            raise IrnnError(f"state names {sorted(state)} do not match the program's {sorted(self.program.states)}")
        state = {name: self.ops.constant(array, self.device) for name, array in state.items()}
        for name, array in state.items():
            expected = self.program.states[name]
            if tuple(array.shape) != (batch, *expected.shape) or _dtype(array) != expected.dtype:
                raise IrnnError(
                    f"state {name} is {_dtype(array)} {list(array.shape)}; "
                    f"it takes {expected.dtype} {[batch, *expected.shape]}"
                )
        return state

    def _scan(self, scan: Scan, environment: dict[str, Any], state: dict[str, Any]) -> None:
        steps = environment[next(iter(scan.sequences.values()))].shape[1]
        collected: dict[str, list[Any]] = {name: [] for name in scan.outputs}
        captured = {name: environment[name] for name in scan.captures}
        valid = None if scan.lengths is None else self.ops.valid(environment[scan.lengths], steps)
        present = {name: environment[scan.starts[name]] if name in scan.starts else state[name] for name in scan.states}
        for t in reversed(range(steps)) if scan.reverse else range(steps):
            local = captured | {inner: environment[outer][:, t] for inner, outer in scan.sequences.items()}
            local |= {before: present[name] for name, (before, _) in scan.states.items()}
            for node in scan.body:
                local[node.output] = self._node(node, local)
            after = {name: local[inner] for name, (_, inner) in scan.states.items()}
            if valid is not None:
                after = {name: self.ops.where(valid[:, t, None], v, present[name]) for name, v in after.items()}
            present.update(after)
            for outer, inner in scan.outputs.items():
                collected[outer].append(local[inner])
        state.update({name: array for name, array in present.items() if name not in scan.starts})
        for outer, items in collected.items():
            environment[outer] = self.ops.stack(items[::-1] if scan.reverse else items)
        environment.update({outer: present[name] for outer, name in scan.finals.items()})

    def _node(self, node: Node, environment: dict[str, Any]) -> Any:
        inputs = [environment[name] for name in node.inputs]
        dtype = self.program.values[node.output].dtype
        return OPS[node.op].apply(self.ops, node, inputs, self.constants[node.output], dtype)


def _dtype(array: Any) -> str:
    """The dtype's name, the same for NumPy and PyTorch."""
    return str(array.dtype).removeprefix("torch.")
