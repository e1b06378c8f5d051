"""Proves that a program is integer-only, well-formed and cannot overflow; refuses it by name otherwise."""

from __future__ import annotations

import math

from irnn.errors import IrnnError
from irnn.program import encodings
from irnn.program.graph import INTEGER_DTYPES, Graph, Node, Scan, State, Value
from irnn.program.ops import OPS, Operand, Range
from irnn.program.ops.base import length_problems


def check(graph: Graph) -> None:
    """Raise :class:`IrnnError` that names every float tensor, float operation and possible overflow."""
    problems = _unknown_operations(graph) or _float_problems(graph)
    if not problems:
        problems = [*_encoding_problems(graph), *_Ranges(graph).problems]
    if problems:
        raise IrnnError("the program is not a valid integer-only program: " + "; ".join(problems))


def ranges(graph: Graph) -> dict[str, Range]:
    """Smallest and largest integer that each value can take, by interval arithmetic over the constants."""
    return _Ranges(graph).of


def _unknown_operations(graph: Graph) -> list[str]:
    return [
        f"unknown operation {n.op!r} ({n.output}); known are {', '.join(OPS)}" for n in graph.walk() if n.op not in OPS
    ]


def _float_problems(graph: Graph) -> list[str]:
    problems = [
        f"tensor {name} is {tensor.data.dtype}"
        for name, tensor in graph.tensors.items()
        if tensor.data.dtype.kind not in "iu"
    ]
    problems += [f"value {n} is {v.dtype}" for n, v in graph.values.items() if v.dtype not in INTEGER_DTYPES]
    problems += [f"state {n} is {s.dtype}" for n, s in graph.states.items() if s.dtype not in INTEGER_DTYPES]
    problems += [
        f"operation {n.op} ({n.output}) is not integer" for n in graph.walk() if not OPS[n.op].integer_programs
    ]
    problems += [
        f"the attribute {key} of {n.op} ({n.output}) is {value!r}"
        for n in graph.walk()
        for key, value in n.attributes.items()
        if any(isinstance(part, float) for part in (value if isinstance(value, (list, tuple)) else (value,)))
    ]
    problems += [
        f"the scale of {name} is {value.scale}, not a positive number"
        for name, value in (graph.values | graph.inputs).items()
        if value.scale is not None and not 0 < value.scale < math.inf
    ]
    if graph.kind != "integer":
        problems.append(f"its kind is {graph.kind!r}")
    return problems


def _encoding_problems(graph: Graph) -> list[str]:
    """Each constant within the range of its encoding."""
    found = {name: encodings.problem(t.data, t.bits, t.encoding) for name, t in graph.tensors.items()}
    return [f"tensor {name} {problem}" for name, problem in found.items() if problem]


class _Ranges:
    """Interval arithmetic along the program: each operation's own proof, one after the other."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.values = graph.inputs | graph.values
        self.problems: list[str] = []
        self.of: dict[str, Range] = {}
        for name, value in graph.inputs.items():
            if value.low is None or value.high is None:
                raise IrnnError(f"input {name} has no range, and an integer program's inputs need one; export it again")
            self.of[name] = value.low, value.high
        for item in graph.nodes:
            if isinstance(item, Scan):
                self._scan(item)
            else:
                self._visit(item)

    def _scan(self, scan: Scan) -> None:
        self.of |= {inner: self.of[outer] for inner, outer in scan.sequences.items()}
        if scan.lengths is not None:
            self.problems += length_problems("a scan", self._operand(scan.lengths))
        for name, (before, _) in scan.states.items():
            self.of[before] = INTEGER_DTYPES[self.values[before].dtype]
            self.problems += self._start_problems(scan, name, self.values[before])
        for node in scan.body:
            self._visit(node)
        for name, (before, after) in scan.states.items():
            if self.values[after].dtype != self.values[before].dtype:
                self.problems.append(f"state {name} changes its dtype to {self.values[after].dtype}")
        self.of |= {outer: self.of[inner] for outer, inner in scan.outputs.items()}
        self.of |= {outer: self.of[scan.states[name][0]] for outer, name in scan.finals.items()}

    def _start_problems(self, scan: Scan, name: str, before: Value) -> list[str]:
        """A state is the program's, or starts from a value of its form."""
        if name not in scan.starts:
            state = self.graph.states.get(name)
            if state is None:
                return [f"state {name} is none of the program's and starts from nothing"]
            start: State | Value = state
        elif name in self.graph.states:
            return [f"state {name} is one of the program's and starts from {scan.starts[name]}"]
        else:
            start = self.values[scan.starts[name]]
            if start.axes:
                return [f"state {name} starts from {scan.starts[name]}, which is a sequence"]
        if (start.dtype, start.shape) != (before.dtype, before.shape):
            return [f"state {name} is {before.dtype} {before.shape} and starts as {start.dtype} {start.shape}"]
        return []

    def _operand(self, name: str) -> Operand:
        return Operand(name, self.values[name], *self.of[name])

    def _visit(self, node: Node) -> None:
        tensors = {role: self.graph.tensors[name] for role, name in node.tensors.items()}
        inputs = [self._operand(name) for name in node.inputs]
        (low, high), problems = OPS[node.op].range(node, inputs, tensors)
        self.of[node.output] = low, high
        self.problems += problems
        dtype = self.values[node.output].dtype
        limit_low, limit_high = INTEGER_DTYPES[dtype]
        if low < limit_low or high > limit_high:
            self.problems.append(f"{node.op} {node.output} can reach {low}..{high}, which {dtype} does not hold")
