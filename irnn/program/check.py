"""Proves that a program is integer-only, well-formed and cannot overflow; refuses it by name otherwise."""

from __future__ import annotations

import math

import numpy as np

from irnn.arithmetic.fixed_point import (
    EXP_ENTRIES,
    EXP_ONE,
    INT32_MAX,
    INT32_MIN,
    MULTIPLIER_MAX,
    MULTIPLIER_MIN,
    NORM_LENGTH_MAX,
    SHIFT_MAX,
    SHIFT_MIN,
)
from irnn.errors import IrnnError
from irnn.program import INTEGER_OPS, LENGTH_MAX, Node, Program, Scan

Range = tuple[int, int]
INTEGER_DTYPES = {"int8": (-128, 127), "uint16": (0, 65535), "int16": (-32768, 32767), "int32": (INT32_MIN, INT32_MAX)}


def check(program: Program) -> None:
    """Raise :class:`IrnnError` that names every float tensor, float operation and possible overflow."""
    problems = _float_problems(program)
    if not problems:
        problems = [*_constant_problems(program), *_Ranges(program).problems]
    if problems:
        raise IrnnError("the program is not a valid integer-only program: " + "; ".join(problems))


def ranges(program: Program) -> dict[str, Range]:
    """Smallest and largest integer that each value can take, by interval arithmetic over the constants."""
    return _Ranges(program).of


def _float_problems(program: Program) -> list[str]:
    problems = [
        f"tensor {name} is {tensor.data.dtype}"
        for name, tensor in program.tensors.items()
        if tensor.data.dtype.kind not in "iu"
    ]
    problems += [f"value {n} is {v.dtype}" for n, v in program.values.items() if v.dtype not in INTEGER_DTYPES]
    problems += [f"state {n} is {s.dtype}" for n, s in program.states.items() if s.dtype not in INTEGER_DTYPES]
    problems += [f"operation {n.op} ({n.output}) is not integer" for n in program.walk() if n.op not in INTEGER_OPS]
    problems += [
        f"the attribute {key} of {n.op} ({n.output}) is {value!r}"
        for n in program.walk()
        for key, value in n.attributes.items()
        if any(isinstance(part, float) for part in (value if isinstance(value, (list, tuple)) else (value,)))
    ]
    problems += [
        f"the scale of {name} is {value.scale}, not a positive number"
        for name, value in (program.values | program.inputs).items()
        if value.scale is not None and not 0 < value.scale < math.inf
    ]
    if program.kind != "integer":
        problems.append(f"its kind is {program.kind!r}")
    return problems


def _constant_problems(program: Program) -> list[str]:
    problems = []
    for node in program.walk():
        for role, name in node.tensors.items():
            data = program.tensors[name].data
            if role.startswith("multiplier") and (data.min() < MULTIPLIER_MIN or data.max() > MULTIPLIER_MAX):
                problems.append(f"{name}: multipliers must lie in [2**30, 2**31)")
            if role.startswith("shift") and (data.min() < SHIFT_MIN or data.max() > SHIFT_MAX):
                problems.append(f"{name}: shifts must lie in [{SHIFT_MIN}, {SHIFT_MAX}]")
            if role == "beta" and np.abs(data.astype(np.int64)).max() > 1 << 30:
                problems.append(f"{name}: beta must lie within +-2**30")
            if role == "gamma" and data.min() < -32767:
                problems.append(f"{name}: gamma must lie within +-32767")
            if role == "knots" and np.any(np.diff(data.astype(np.int64)) <= 0):
                problems.append(f"{name}: knots must ascend")
            bits = program.tensors[name].bits
            if role == "table" and node.op == "attention_weights":
                if (
                    data.shape != (EXP_ENTRIES,)
                    or data[0] != EXP_ONE
                    or data[-1] != 0
                    or np.any(np.diff(data.astype(np.int64)) > 0)
                ):
                    problems.append(f"{name}: exp takes {EXP_ENTRIES} entries that fall from {EXP_ONE} to 0")
            elif role in ("weight", "table") and np.abs(data.astype(np.int64)).max() > 2 ** (bits - 1) - 1:
                problems.append(f"{name}: a weight leaves the range of its {bits} bits")
        shift = {"pwl": "shift", "attention_weights": "tanh_shift"}.get(node.op)
        if shift and not 8 <= node.attributes[shift] <= 24:
            problems.append(f"{node.output}: the shift of a table must lie in [8, 24]")
    return problems


class _Ranges:
    """Interval arithmetic along the program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.problems: list[str] = []
        self.of: dict[str, Range] = {name: (value.low, value.high) for name, value in program.inputs.items()}
        for item in program.nodes:
            if isinstance(item, Scan):
                self._scan(item)
            else:
                self._visit(item)

    def _scan(self, scan: Scan) -> None:
        self.of |= {inner: self.of[outer] for inner, outer in scan.sequences.items()}
        self._lengths("a scan", scan.lengths)
        for name, (before, _) in scan.states.items():
            self.of[before] = INTEGER_DTYPES[self.program.states[name].dtype]
        for node in scan.body:
            self._visit(node)
        for name, (_, after) in scan.states.items():
            if self.program.values[after].dtype != self.program.states[name].dtype:
                self.problems.append(f"state {name} changes its dtype to {self.program.values[after].dtype}")
        self.of |= {outer: self.of[inner] for outer, inner in scan.outputs.items()}

    def _visit(self, node: Node) -> None:
        low, high = self.of[node.output] = self._range(node)
        dtype = self.program.values[node.output].dtype
        limit_low, limit_high = INTEGER_DTYPES[dtype]
        if low < limit_low or high > limit_high:
            self.problems.append(f"{node.op} {node.output} can reach {low}..{high}, which {dtype} does not hold")

    def _range(self, node: Node) -> Range:
        inputs = [self.of[name] for name in node.inputs]
        a = node.attributes
        match node.op:
            case "embedding":
                table = self.program.tensors[node.tensors["table"]].data
                return int(table.min()), int(table.max())
            case "linear":
                return self._linear(node, inputs[0])
            case "multiply":
                x = [v - a["zero_point_a"] for v in inputs[0]]
                y = [v - a["zero_point_b"] for v in inputs[1]]
                products = [p * q for p in x for q in y]
                return min(products), max(products)
            case "slice":
                return inputs[0]
            case "concat":
                return min(low for low, _ in inputs), max(high for _, high in inputs)
            case "pwl":
                first = int(self.program.tensors[node.tensors["knots"]].data[0])
                if inputs[0][0] < first:
                    self.problems.append(f"pwl {node.output} reads {inputs[0][0]}, below its first knot {first}")
            case "mask" | "patches":
                if node.op == "mask":
                    self._lengths(node.output, node.inputs[1])
                return min(inputs[0][0], a["fill"]), max(inputs[0][1], a["fill"])
            case "shorten":
                return tuple(-(-bound // a["factor"]) for bound in inputs[0])
            case "subsample" | "flatten":
                return inputs[0]
            case "attention_weights":
                self._attention_weights(node)
                return 0, EXP_ONE
            case "attention_context":
                weights, values = (self.program.values[name].dtype for name in node.inputs)
                if (weights, values) != ("uint16", "int8"):
                    self.problems.append(f"{node.op} {node.output} reads {weights} and {values}, not uint16 and int8")
            case "mad_norm" | "layer_norm":
                if self.program.values[node.inputs[0]].dtype not in ("int8", "int16"):
                    self.problems.append(f"{node.op} {node.output} reads {node.inputs[0]}, which is not int16")
                length = self.program.values[node.inputs[0]].shape[-1] // a["groups"]
                if length > NORM_LENGTH_MAX:
                    self.problems.append(
                        f"{node.op} {node.output} is over {length} elements, at most {NORM_LENGTH_MAX}"
                    )
        return a["low"], a["high"]

    def _lengths(self, reader: str, name: str | None) -> None:
        """Lengths stand between 1 and the longest sequence for which the reciprocals were counted."""
        if name is not None and not 1 <= self.of[name][0] <= self.of[name][1] <= LENGTH_MAX:
            self.problems.append(f"{reader}: the lengths {name} can leave 1..{LENGTH_MAX}")

    def _attention_weights(self, node: Node) -> None:
        query, keys, lengths = node.inputs
        self._lengths(node.output, lengths)
        for name in (query, keys):
            if self.program.values[name].dtype != "int16":
                self.problems.append(f"{node.op} {node.output} reads {name}, which is not int16")
        first = int(self.program.tensors[node.tensors["knots"]].data[0])
        if node.attributes["low"] < first:
            self.problems.append(f"{node.output}: its sum can lie below the first knot {first} of tanh")
        weight = self.program.tensors[node.tensors["weight"]].data.astype(np.int64)
        reach = max(abs(node.attributes["tanh_low"]), abs(node.attributes["tanh_high"]))
        if 2 * int(np.abs(weight).sum()) * reach > INT32_MAX:
            self.problems.append(f"{node.output}: the difference of two scores could overflow int32")

    def _linear(self, node: Node, x: Range) -> Range:
        weight = self.program.tensors[node.tensors["weight"]].data.astype(np.int64)
        bias = self.program.tensors[node.tensors["bias"]].data.astype(np.int64)
        positive, negative = np.maximum(weight, 0).sum(1), np.minimum(weight, 0).sum(1)
        if self.program.values[node.inputs[0]].dtype != "int8":
            self.problems.append(f"linear {node.output} reads {node.inputs[0]}, which is not int8")
        # The accumulator passes through partial sums, so the bound is on the sum of magnitudes, bias first or last.
        reach = (positive - negative) * max(abs(x[0]), abs(x[1])) + np.abs(bias)
        if reach.max() > INT32_MAX:
            row = int(reach.argmax())
            self.problems.append(f"linear {node.output} could overflow int32 in row {row} (reach {int(reach.max())})")
        low = positive * x[0] + negative * x[1] + bias
        high = positive * x[1] + negative * x[0] + bias
        return int(low.min()), int(high.max())
