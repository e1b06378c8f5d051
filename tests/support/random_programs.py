"""Random LSTM and GRU programs, integer or float, built straight from nodes: untrained, every awkward size and end.

The wiring is that of a converted model; weights, tables, multipliers and zero points are drawn at random, so that an
executor which mends one special case (symmetric zero points, smooth tables, sizes that fill a vector) is found out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from irnn.program import Node, Program, Scan, State, Tensor, Value

INT16 = (-32768, 32767)
INT8 = (-128, 127)
GATES = ("i", "f", "j", "o")


@dataclass(frozen=True)
class Spec:
    """What to build.  ``vocabulary=None``: the input is ``input_size`` features (int8, or float32 in a float program).

    ``norm`` is None, "mad" or "layer".  ``extreme`` weights are all at the ends of their range, with rows of zeros and
    gates that saturate.  ``wide_tables`` draws slopes for which the piecewise-linear functions need 64-bit products.
    """

    hidden: int = 17
    input_size: int = 9
    vocabulary: int | None = 23
    layers: int = 1
    norm: str | None = None
    bidirectional: bool = False
    logits: int | None = 23
    weight_bits: int = 8
    pieces: int = 16
    kind: str = "integer"
    extreme: bool = False
    wide_tables: bool = False
    seed: int = 0
    cell: str = "lstm"

    @property
    def gates(self) -> int:
        """Whose rows a cell's matrices hold."""
        return 3 if self.cell == "gru" else 4


def multiplier_and_shift(real: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``real = multiplier * 2**-shift`` with the multiplier in [2**30, 2**31), as int32 arrays of at least one axis."""
    mantissa, exponent = np.frexp(np.atleast_1d(np.asarray(real, dtype=np.float64)))
    multiplier = np.rint(mantissa * 2.0**31).astype(np.int64)
    carry = multiplier == 1 << 31
    multiplier, exponent = np.where(carry, 1 << 30, multiplier), exponent + carry
    return multiplier.astype(np.int32), np.clip(31 - exponent, 1, 62).astype(np.int32)


def random_inputs(program: Program, batch: int, steps: int, seed: int = 0) -> np.ndarray:
    """Inputs ``[batch, steps, *shape]`` over the whole range that the program allows, the ends included."""
    ((_, value),) = program.inputs.items()
    rng = np.random.default_rng(seed)
    shape = (batch, steps, *value.shape)
    if value.dtype == "float32":
        return rng.standard_normal(shape).astype(np.float32)
    inputs = rng.integers(value.low, value.high, shape, endpoint=True)
    flat = inputs.reshape(-1)
    flat[: min(2, flat.size)] = (value.low, value.high)[: flat.size]
    return inputs.astype(value.dtype)


def random_state(program: Program, batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A state in the middle of a sequence: every integer of the dtype's range may occur."""
    rng = np.random.default_rng(seed)
    state = {}
    for name, value in program.states.items():
        shape = (batch, *value.shape)
        if value.dtype == "float32":
            state[name] = rng.standard_normal(shape).astype(np.float32)
        else:
            info = np.iinfo(value.dtype)
            state[name] = rng.integers(info.min, info.max, shape, endpoint=True).astype(value.dtype)
    return state


def with_tensors(program: Program, changed: dict[str, np.ndarray]) -> Program:
    """A copy of the program with these constants replaced."""
    assert changed.keys() <= program.tensors.keys()
    tensors = program.tensors | {k: Tensor(v, program.tensors[k].bits) for k, v in changed.items()}
    return replace(program, tensors=tensors)


def random_program(spec: Spec) -> Program:
    """The program of ``spec``: optional embedding, layers of (bidirectional) LSTM, optional logits."""
    return _Builder(spec).build()


class _Builder:
    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.integer = spec.kind == "integer"
        self.rng = np.random.default_rng([spec.seed, spec.hidden, spec.input_size])
        self.values: dict[str, Value] = {}
        self.tensors: dict[str, Tensor] = {}
        self.states: dict[str, State] = {}

    def build(self) -> Program:
        spec = self.spec
        nodes: list[Node | Scan] = []
        if spec.vocabulary is None:
            low, high = INT8 if self.integer else (None, None)
            name = self.value("features", "int8", spec.input_size, low=low, high=high)
            inputs = {name: self.values[name]}
        else:
            name = "ids"
            self.values[name] = Value("int32", (), low=0, high=spec.vocabulary - 1)
            inputs = {name: self.values[name]}
            table = self.weights("embedding.table", spec.vocabulary, spec.input_size, 8)
            self.value("embedded", "int8", spec.input_size, low=-127, high=127)
            nodes.append(Node("embedding", (name,), "embedded", {}, {"table": table}))
            name = "embedded"
        size = spec.input_size
        for layer in range(spec.layers):
            zero_point = int(self.rng.integers(-100, 100))
            outputs = []
            for direction in ("forward", "backward") if spec.bidirectional else ("forward",):
                cell = self.gru if spec.cell == "gru" else self.lstm
                outputs.append(cell(nodes, name, size, f"layer{layer}.{direction}", zero_point))
            name, size = outputs[0], spec.hidden
            if spec.bidirectional:
                name, size = self.value(f"layer{layer}.both", "int8", 2 * spec.hidden), 2 * spec.hidden
                nodes.append(Node("concat", tuple(outputs), name))
        if spec.logits is not None:
            scale = 2.0**-10
            name = self.linear(nodes, name, size, "logits", spec.logits, scale=scale)
        return Program(spec.kind, inputs, (name,), self.states, self.values, tuple(nodes), self.tensors)

    def lstm(self, nodes: list, x: str, size: int, prefix: str, zero_point: int) -> str:
        """One direction of one layer; returns the name of the sequence of its hidden states."""
        hidden, norm = self.spec.hidden, self.spec.norm
        pre_x = self.requantized_linear(nodes, x, size, f"{prefix}.x")
        if norm:
            pre_x = self.norm(nodes, pre_x, f"{prefix}.x.norm", 4)
        body: list[Node] = []
        local_x = self.value(f"{prefix}.step.x", "int16", 4 * hidden)
        h, c = self.value(f"{prefix}.step.h", "int8", hidden), self.value(f"{prefix}.step.c", "int16", hidden)
        pre_h = self.requantized_linear(body, h, hidden, f"{prefix}.h")
        if norm:
            pre_h = self.norm(body, pre_h, f"{prefix}.h.norm", 4)
        gates = self.value(f"{prefix}.gates", "int16", 4 * hidden)
        limits = {"low": INT16[0], "high": INT16[1]} if self.integer else {}
        body.append(Node("add", (local_x, pre_h), gates, limits))
        activated = {}
        for k, gate in enumerate(GATES):
            part = self.value(f"{prefix}.{gate}.pre", "int16", hidden)
            body.append(Node("slice", (gates,), part, {"start": k * hidden, "stop": (k + 1) * hidden}))
            activated[gate] = self.activation(body, part, f"{prefix}.{gate}", "tanh" if gate == "j" else "sigmoid")
        kept = self.product(body, activated["f"], c, f"{prefix}.kept", -128, 0)
        new = self.product(body, activated["i"], activated["j"], f"{prefix}.new", -128, 0)
        c_next = self.value(f"{prefix}.c", "int16", hidden)
        if self.integer:
            factors = (1 / 255, 2.0 ** self.rng.uniform(11.5, 13.5) / (255 * 127))
            body.append(self.requantize((kept, new), c_next, f"{prefix}.c", factors, 0, INT16))
        else:
            body.append(Node("add", (kept, new), c_next))
        readable = self.norm(body, c_next, f"{prefix}.c.norm", 1) if norm else c_next
        tanh_c = self.activation(body, readable, f"{prefix}.tanh_c", "tanh")
        h_next = self.value(f"{prefix}.h", "int8", hidden, zero_point=zero_point)
        if self.integer:
            out = self.product(body, activated["o"], tanh_c, f"{prefix}.out", -128, 0)
            factor = 2.0 ** self.rng.uniform(7, 8.5) / (255 * 127)
            body.append(self.requantize((out,), h_next, f"{prefix}.h", (factor,), zero_point, INT8))
        else:
            body.append(Node("multiply", (activated["o"], tanh_c), h_next))
        self.states[f"{prefix}.h"] = State(self.dtype("int8"), (hidden,), zero_point if self.integer else 0)
        self.states[f"{prefix}.c"] = State(self.dtype("int16"), (hidden,))
        sequence = self.value(f"{prefix}.out_sequence", "int8", hidden, zero_point=zero_point)
        nodes.append(
            Scan(
                sequences={local_x: pre_x},
                states={f"{prefix}.h": (h, h_next), f"{prefix}.c": (c, c_next)},
                outputs={sequence: h_next},
                body=tuple(body),
                reverse=prefix.endswith("backward"),
            )
        )
        return sequence

    def gru(self, nodes: list, x: str, size: int, prefix: str, zero_point: int) -> str:
        """One direction of one GRU layer; returns the name of the sequence of its outputs."""
        hidden, norm = self.spec.hidden, self.spec.norm
        pre_x = self.requantized_linear(nodes, x, size, f"{prefix}.x")
        if norm:
            pre_x = self.norm(nodes, pre_x, f"{prefix}.x.norm", 3)
        body: list[Node] = []
        local_x, h = (
            self.value(f"{prefix}.step.x", "int16", 3 * hidden),
            self.value(f"{prefix}.step.h", "int16", hidden),
        )
        to_bytes = 2.0 ** self.rng.uniform(-8.5, -7.5)
        pre_h = self.requantized_linear(
            body, self.read(body, h, f"{prefix}.read", to_bytes, zero_point), hidden, f"{prefix}.h"
        )
        if norm:
            pre_h = self.norm(body, pre_h, f"{prefix}.h.norm", 3)
        sums = self.value(f"{prefix}.gates", "int16", 3 * hidden)
        limits = {"low": INT16[0], "high": INT16[1]} if self.integer else {}
        body.append(Node("add", (local_x, pre_h), sums, limits))
        parts = {"r": (sums, 0), "z": (sums, 1), "n_x": (local_x, 2), "n_h": (pre_h, 2)}
        for name, (source, k) in parts.items():
            parts[name] = self.value(f"{prefix}.{name}.pre", "int16", hidden)
            body.append(Node("slice", (source,), parts[name], {"start": k * hidden, "stop": (k + 1) * hidden}))
        r, z = (self.activation(body, parts[gate], f"{prefix}.{gate}", "sigmoid") for gate in "rz")
        reset = self.product(body, r, parts["n_h"], f"{prefix}.reset", -128, 0)
        candidate = self.summed(body, (parts["n_x"], reset), f"{prefix}.n.pre", (self.rng.uniform(0.5, 1), 1 / 255))
        n = self.activation(body, candidate, f"{prefix}.n", "tanh")
        turned = self.value(f"{prefix}.z.complement", "int8", hidden)
        body.append(Node("complement", (z,), turned))
        new = self.product(body, turned, n, f"{prefix}.new", -128, 0)
        kept = self.product(body, z, h, f"{prefix}.kept", -128, 0)
        spread = 2.0 ** self.rng.uniform(14, 15)
        h_next = self.summed(body, (new, kept), f"{prefix}.next", (spread / (255 * 127), 1 / 255))
        output = self.read(body, h_next, f"{prefix}.written", to_bytes, zero_point)
        self.states[f"{prefix}.h"] = State(self.dtype("int16"), (hidden,))
        sequence = self.value(f"{prefix}.out_sequence", "int8", hidden, zero_point=zero_point)
        nodes.append(
            Scan(
                sequences={local_x: pre_x},
                states={f"{prefix}.h": (h, h_next)},
                outputs={sequence: output},
                body=tuple(body),
                reverse=prefix.endswith("backward"),
            )
        )
        return sequence

    def read(self, nodes: list, x: str, name: str, factor: float, zero_point: int) -> str:
        """x at 8 bits; in a float program x itself."""
        if not self.integer:
            return x
        output = self.value(name, "int8", self.spec.hidden, zero_point=zero_point)
        node = self.requantize((x,), output, name, (factor,), zero_point, INT8)
        nodes.append(Node("residual", node.inputs, output, {"zero_points": [0], **node.attributes}, node.tensors))
        return output

    def summed(self, nodes: list, terms: tuple[str, ...], name: str, factors: tuple) -> str:
        """The sum of accumulators at 16 bits."""
        output = self.value(name, "int16", self.spec.hidden)
        node = self.requantize(terms, output, name, factors, 0, INT16) if self.integer else Node("add", terms, output)
        nodes.append(node)
        return output

    def requantized_linear(self, nodes: list, x: str, size: int, prefix: str) -> str:
        """``linear`` and, in an integer program, its requantization to int16 with a spread over most of the range."""
        rows = self.spec.gates * self.spec.hidden
        acc = self.linear(nodes, x, size, prefix, rows)
        if not self.integer:
            return acc
        output = self.value(f"{prefix}.pre", "int16", rows)
        weight = self.tensors[f"{prefix}.weight"].data.astype(np.float64)
        deviation = 73.0 * np.sqrt((weight**2).sum(1) + 1.0)
        spread = 30000.0 if self.spec.extreme else 6000.0
        nodes.append(self.requantize((acc,), output, f"{prefix}.pre", (spread / deviation,), 0, INT16))
        return output

    def linear(self, nodes: list, x: str, size: int, prefix: str, rows: int, scale: float | None = None) -> str:
        weight = self.weights(f"{prefix}.weight", rows, size, self.spec.weight_bits)
        if self.integer:
            bias = self.rng.integers(-20000, 20000, rows).astype(np.int32)
            if self.spec.extreme:
                bias[:: max(1, rows // 3)] = 1 << 30
        else:
            bias = (0.1 * self.rng.standard_normal(rows)).astype(np.float32)
        output = self.value(f"{prefix}.acc", "int32", rows, scale=scale)
        roles = {"weight": weight, "bias": self.tensor(f"{prefix}.bias", bias, 32)}
        nodes.append(Node("linear", (x,), output, {}, roles))
        return output

    def requantize(
        self, inputs: tuple[str, ...], output: str, prefix: str, factors: tuple, zero_point: int, limits: tuple
    ) -> Node:
        roles = {}
        for k, factor in enumerate(factors):
            multiplier, shift = multiplier_and_shift(factor)
            roles[f"multiplier_{k}"] = self.tensor(f"{prefix}.multiplier_{k}", multiplier, 32)
            roles[f"shift_{k}"] = self.tensor(f"{prefix}.shift_{k}", shift, 32)
        return Node(
            "requantize", inputs, output, {"zero_point": zero_point, "low": limits[0], "high": limits[1]}, roles
        )

    def product(self, nodes: list, a: str, b: str, output: str, zero_point_a: int, zero_point_b: int) -> str:
        attributes = {"zero_point_a": zero_point_a, "zero_point_b": zero_point_b} if self.integer else {}
        nodes.append(Node("multiply", (a, b), self.value(output, "int32", self.spec.hidden), attributes))
        return output

    def activation(self, nodes: list, x: str, prefix: str, function: str) -> str:
        output = self.value(prefix, "int8", self.spec.hidden)
        if not self.integer:
            nodes.append(Node(function, (x,), output))
            return output
        low, high, shift = (-128, 127, 14) if function == "sigmoid" else (-127, 127, 15)
        count = self.spec.pieces
        inner = np.sort(self.rng.choice(np.arange(-30000, 30000), count - 1, replace=False)) if count > 1 else []
        knots = np.concatenate([[INT16[0]], inner, [INT16[1] + 1]]).astype(np.int64)
        # A noisy rising curve that overshoots the output's range at both ends.
        y = (low + (high - low) / (1 + np.exp(-knots / 3000))) + self.rng.uniform(-8, 8, count + 1)
        slopes = np.rint(np.diff(y) * 2.0**shift / np.diff(knots)).astype(np.int64)
        if self.spec.wide_tables:
            slopes[self.rng.integers(0, count, max(1, count // 4))] = math.copysign(1 << 22, self.rng.uniform(-1, 1))
        intercepts = np.rint(y[:-1] * 2.0**shift).astype(np.int64)
        arrays = {"knots": knots[:-1], "slopes": slopes, "intercepts": intercepts}
        roles = {role: self.tensor(f"{prefix}.{role}", data.astype(np.int32), 32) for role, data in arrays.items()}
        attributes = {"function": function, "shift": shift, "low": low, "high": high}
        nodes.append(Node("pwl", (x,), output, attributes, roles))
        return output

    def norm(self, nodes: list, x: str, prefix: str, groups: int) -> str:
        size = self.values[x].shape[0]
        output = self.value(f"{prefix}.out", "int16", size)
        if self.integer:
            multiplier, shift = multiplier_and_shift(2.0 ** self.rng.uniform(-13, -12, groups))
            arrays = {
                "gamma": self.rng.integers(-32767, 32767, size, endpoint=True).astype(np.int16),
                "beta": self.rng.integers(-(1 << 22), 1 << 22, size).astype(np.int32),
                "multiplier": multiplier,
                "shift": shift,
            }
            attributes = {"groups": groups, "low": INT16[0], "high": INT16[1]}
        else:
            arrays = {
                "gamma": (1 + 0.1 * self.rng.standard_normal(size)).astype(np.float32),
                "beta": (0.1 * self.rng.standard_normal(size)).astype(np.float32),
            }
            attributes = {"groups": groups, "epsilon": 1e-5}
        roles = {r: self.tensor(f"{prefix}.{r}", data, 16 if r == "gamma" else 32) for r, data in arrays.items()}
        nodes.append(Node(f"{self.spec.norm}_norm", (x,), output, attributes, roles))
        return output

    def weights(self, name: str, rows: int, columns: int, bits: int) -> str:
        if not self.integer:
            scale = 1.0 / math.sqrt(columns)
            return self.tensor(name, (scale * self.rng.standard_normal((rows, columns))).astype(np.float32), 32)
        limit = 2 ** (bits - 1) - 1
        data = self.rng.integers(-limit, limit, (rows, columns), endpoint=True).astype(np.int8)
        if self.spec.extreme:
            data = np.where(data >= 0, limit, -limit).astype(np.int8)
            data[0], data[-1] = limit, -limit
            data[rows // 2] = 0
        return self.tensor(name, data, bits)

    def tensor(self, name: str, data: np.ndarray, bits: int) -> str:
        self.tensors[name] = Tensor(data, bits)
        return name

    def dtype(self, dtype: str) -> str:
        return dtype if self.integer else "float32"

    def value(self, name: str, dtype: str, size: int, **fields: object) -> str:
        if self.integer:
            self.values[name] = Value(dtype, (size,), **fields)
        else:
            self.values[name] = Value("float32", (size,))
        return name
