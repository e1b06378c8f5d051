"""Executes a program with integers only: the golden reference that every other executor must equal.

With the NumPy namespace (the default) it is the reference; ``irnn.qat`` runs the same walk with the PyTorch namespace
to evaluate a model in training, where the matrix products are exact but fast.
"""

from __future__ import annotations

from typing import Any

from irnn import fixed_point
from irnn.errors import IrnnError
from irnn.namespaces import NUMPY
from irnn.program import Node, Program, Scan, Value


class Interpreter:
    """A program bound to an operations namespace (and, for PyTorch, a device).

    ``run`` takes and returns the namespace's arrays: NumPy by default.
    """

    def __init__(self, program: Program, ops: Any = NUMPY, device: Any = None) -> None:
        if program.kind != "integer":
            raise IrnnError(f"the interpreter executes integer programs, this one is {program.kind!r}")
        self.program = program
        self.ops = ops
        self.device = device
        self.tensors = {name: ops.constant(tensor.data, device) for name, tensor in program.tensors.items()}
        linear = {node.tensors["weight"] for node in program.walk() if node.op == "linear"}
        self.weights = {name: ops.weight(program.tensors[name].data, device) for name in linear}

    def run(self, inputs: Any, state: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Inputs ``[batch, time, *shape]`` -> (the first output ``[batch, time, ...]``, the last state)."""
        outputs, state = self.run_all(inputs, state)
        return outputs[0], state

    def run_all(self, inputs: Any, state: dict[str, Any] | None = None) -> tuple[list[Any], dict[str, Any]]:
        """As :meth:`run`, with every output of the program."""
        ((name, value),) = self.program.inputs.items()
        inputs = self._checked_inputs(name, value, inputs)
        if state is None:
            state = self.program.initial_state(inputs.shape[0])
        state = self._checked_state(state, inputs.shape[0])
        environment = {name: inputs}
        for item in self.program.nodes:
            if isinstance(item, Scan):
                self._scan(item, environment, state)
            else:
                environment[item.output] = self._node(item, environment)
        return [environment[name] for name in self.program.outputs], state

    def _checked_inputs(self, name: str, value: Value, inputs: Any) -> Any:
        inputs = self.ops.constant(inputs, self.device)
        shape = tuple(inputs.shape)
        if len(shape) != 2 + len(value.shape) or shape[2:] != value.shape or 0 in shape:
            axes = ", ".join(["batch", "time", *map(str, value.shape)])
            raise IrnnError(f"input {name} has the shape {list(shape)}; it takes [{axes}], none of them 0")
        if not _dtype(inputs).startswith(("int", "uint")):
            raise IrnnError(f"input {name} is {_dtype(inputs)}; an integer program takes integers, {value.dtype}")
        low, high = int(inputs.min()), int(inputs.max())
        if low < value.low or high > value.high:
            worst = low if low < value.low else high
            raise IrnnError(f"input {name} holds {worst}; allowed are {value.low} to {value.high}")
        return inputs

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
        for t in reversed(range(steps)) if scan.reverse else range(steps):
            local = {inner: environment[outer][:, t] for inner, outer in scan.sequences.items()}
            local |= {before: state[name] for name, (before, _) in scan.states.items()}
            for node in scan.body:
                local[node.output] = self._node(node, local)
            state.update({name: local[after] for name, (_, after) in scan.states.items()})
            for outer, inner in scan.outputs.items():
                collected[outer].append(local[inner])
        for outer, items in collected.items():
            environment[outer] = self.ops.stack(items[::-1] if scan.reverse else items)

    def _node(self, node: Node, environment: dict[str, Any]) -> Any:
        ops, a = self.ops, node.attributes
        x = [environment[name] for name in node.inputs]
        w = {role: self.tensors[name] for role, name in node.tensors.items()}
        dtype = self.program.values[node.output].dtype
        match node.op:
            case "embedding":
                return ops.take(w["table"], x[0])
            case "linear":
                return ops.matmul(x[0], self.weights[node.tensors["weight"]]) + w["bias"]
            case "requantize":
                terms = [(v, w[f"multiplier_{k}"], w[f"shift_{k}"]) for k, v in enumerate(x)]
                return fixed_point.requantize(ops, terms, a["zero_point"], a["low"], a["high"], dtype)
            case "add":
                return fixed_point.add(ops, x[0], x[1], a["low"], a["high"], dtype)
            case "multiply":
                return fixed_point.multiply(ops, x[0], x[1], a["zero_point_a"], a["zero_point_b"])
            case "pwl":
                return fixed_point.pwl(
                    ops, x[0], w["knots"], w["slopes"], w["intercepts"], a["shift"], a["low"], a["high"], dtype
                )
            case "mad_norm" | "layer_norm":
                return self._norm(node.op, x[0], w, a, dtype)
            case "slice":
                return x[0][..., a["start"] : a["stop"]]
            case "concat":
                return ops.concat(x)
        raise IrnnError(f"unknown operation {node.op!r} in an integer program")

    def _norm(self, op: str, x: Any, w: dict[str, Any], a: dict[str, Any], dtype: str) -> Any:
        groups = a["groups"]
        length = x.shape[-1] // groups
        rows = x.reshape(*x.shape[:-1], groups, length)
        y = getattr(fixed_point, op)(
            self.ops,
            rows,
            length,
            w["gamma"].reshape(groups, length),
            w["beta"].reshape(groups, length),
            w["multiplier"].reshape(groups, 1),
            w["shift"].reshape(groups, 1),
            a["low"],
            a["high"],
            dtype,
        )
        return y.reshape(x.shape)


def _dtype(array: Any) -> str:
    """The dtype's name, the same for NumPy and PyTorch."""
    return str(array.dtype).removeprefix("torch.")
