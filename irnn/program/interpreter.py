"""Executes a program with integers only: the golden reference that every other executor must equal.

With the NumPy namespace (the default) it is the reference; ``irnn.qat`` runs the same walk with the PyTorch namespace
to evaluate a model in training, where the matrix products are exact but fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.arithmetic import fixed_point
from irnn.arithmetic.numpy_ops import NUMPY
from irnn.errors import IrnnError
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
        linear = {node.tensors["weight"] for node in program.walk() if node.op in ("linear", "attention_weights")}
        self.weights = {name: ops.weight(program.tensors[name].data, device) for name in linear}

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
        if low < value.low or high > value.high:
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
        for t in reversed(range(steps)) if scan.reverse else range(steps):
            local = captured | {inner: environment[outer][:, t] for inner, outer in scan.sequences.items()}
            local |= {before: state[name] for name, (before, _) in scan.states.items()}
            for node in scan.body:
                local[node.output] = self._node(node, local)
            after = {name: local[inner] for name, (_, inner) in scan.states.items()}
            if valid is not None:
                after = {name: self.ops.where(valid[:, t, None], v, state[name]) for name, v in after.items()}
            state.update(after)
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
            case "residual":
                terms = [(v, a["zero_points"][k], w[f"multiplier_{k}"], w[f"shift_{k}"]) for k, v in enumerate(x)]
                return fixed_point.residual(ops, terms, a["zero_point"], a["low"], a["high"], dtype)
            case "mask":
                valid = ops.valid(x[1], x[0].shape[1])
                valid = valid.reshape(*valid.shape, *[1] * (len(x[0].shape) - 2))
                return ops.where(valid, x[0], ops.to(a["fill"], dtype))
            case "shorten":
                return (x[0] + (a["factor"] - 1)) // a["factor"]
            case "subsample":
                return x[0][:, :: a["factor"]]
            case "patches":
                return self._patches(x[0], a)
            case "flatten":
                return x[0].reshape(*x[0].shape[:-2], -1)
            case "attention_weights":
                return self._attention_weights(node, x, w, a)
            case "attention_context":
                y = fixed_point.attention_context(
                    ops, x[0][..., None, :], x[1].swapaxes(-1, -2), a["zero_point_values"], w["multiplier"],
                    w["shift"], a["zero_point"], a["low"], a["high"], dtype,
                )  # fmt: skip
                return y[..., 0]
        raise IrnnError(f"unknown operation {node.op!r} in an integer program")

    def _patches(self, x: Any, a: dict[str, Any]) -> Any:
        """Neighbourhoods of every (strided) step and band, for a convolution as a matrix product."""
        x = x.reshape(*x.shape[:2], -1, a["channels"])
        (kernel_t, kernel_f), (stride_t, stride_f) = a["kernel"], a["strides"]
        # Half a kernel of border on both sides: ceil(size / stride) neighbourhoods.
        counts = [-(-size // stride) for size, stride in zip(x.shape[1:3], (stride_t, stride_f), strict=True)]
        for axis, kernel in ((1, kernel_t), (2, kernel_f)):
            x = self.ops.pad(x, axis, kernel // 2, kernel // 2, a["fill"])
        parts = [
            x[:, dt : dt + stride_t * counts[0] : stride_t, df : df + stride_f * counts[1] : stride_f]
            for dt in range(kernel_t)
            for df in range(kernel_f)
        ]
        return self.ops.concat(parts)

    def _attention_weights(self, node: Node, x: list[Any], w: dict[str, Any], a: dict[str, Any]) -> Any:
        ops, (query, keys, lengths) = self.ops, x
        both_i16 = fixed_point.add(ops, keys, query[..., None, :], a["low"], a["high"], "int16")
        tanh_i8 = fixed_point.pwl(
            ops, both_i16, w["knots"], w["slopes"], w["intercepts"], a["tanh_shift"], a["tanh_low"], a["tanh_high"],
            "int8",
        )  # fmt: skip
        score_i32 = ops.matmul(tanh_i8, self.weights[node.tensors["weight"]])[..., 0]
        valid = ops.valid(lengths, keys.shape[1])
        return fixed_point.attention_weights(ops, score_i32, valid, w["table"], w["multiplier"], w["shift"])

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
