"""The independent oracle: LSTM networks in plain Python integers, written from the arithmetic contract.

Nothing here imports the fixed-point functions, the namespaces or the interpreter, so a mistake shared by every
executor of those functions is found out.  A :class:`Network` is what the contract speaks of: layers, gates, tables and
norms as nested lists of Python integers; :func:`read_network` recovers it from a program by following the wiring that
an LSTM must have, and refuses any other.

Every division that rounds is one function, :func:`nearest`: ``floor(numerator / denominator + 1/2)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from irnn.program.graph import Graph, Node, Scan

Row = list[int]
SIGMOID_ZERO_POINT = -128


def nearest(numerator: int, denominator: int) -> int:
    """``floor(numerator / denominator + 1/2)``: the nearest integer, ties up."""
    quotient, remainder = divmod(numerator, denominator)
    return quotient + 1 if 2 * remainder >= denominator else quotient


def clamp(value: int, limits: tuple[int, int]) -> int:
    """``value`` held within the inclusive limits."""
    return max(limits[0], min(limits[1], value))


@dataclass(frozen=True)
class Factors:
    """Real factors ``multipliers[k] / 2**shifts[k]``, one an element or one for all."""

    multipliers: Row
    shifts: Row

    def times(self, k: int, value: int) -> int:
        """``value`` by the factor of element ``k``, rounded."""
        k %= len(self.multipliers)
        return nearest(value * self.multipliers[k], 2 ** self.shifts[k])


@dataclass(frozen=True)
class Affine:
    """``weight x + bias``; the bias already holds the zero-point correction of x."""

    weight: list[Row]
    bias: Row

    def __call__(self, x: Row) -> Row:
        return [
            b + sum(w * v for w, v in zip(row, x, strict=True)) for row, b in zip(self.weight, self.bias, strict=True)
        ]


@dataclass(frozen=True)
class Table:
    """A piecewise-linear function: in piece p, ``slopes[p] (x - knots[p]) + intercepts[p]``, over ``2**shift``."""

    knots: Row
    slopes: Row
    intercepts: Row
    shift: int
    limits: tuple[int, int]

    def __call__(self, x: int) -> int:
        if x < self.knots[0]:
            raise AssertionError(f"{x} lies below the first knot {self.knots[0]}")
        piece = max(p for p, knot in enumerate(self.knots) if knot <= x)
        value = self.slopes[piece] * (x - self.knots[piece]) + self.intercepts[piece]
        return clamp(nearest(value, 2**self.shift), self.limits)


@dataclass(frozen=True)
class NormLayer:
    """MadNorm ("mad_norm") or LayerNorm ("layer_norm") of each of ``groups`` equal parts."""

    kind: str
    groups: int
    gamma: Row
    beta: Row
    factors: Factors
    limits: tuple[int, int]

    def __call__(self, x: Row) -> Row:
        length = len(x) // self.groups
        y = []
        for group in range(self.groups):
            part = slice(group * length, (group + 1) * length)
            t = (mad_normalized if self.kind == "mad_norm" else standardized)(x[part])
            acc = [g * v + b for g, v, b in zip(self.gamma[part], t, self.beta[part], strict=True)]
            y += [clamp(self.factors.times(group, a), self.limits) for a in acc]
        return y


def mad_normalized(x: Row) -> Row:
    """x - mean over the mean absolute deviation, with 10 fractional bits, as int16."""
    n = len(x)
    centred = [n * v - sum(x) for v in x]
    deviation = sum(abs(u) for u in centred)
    if deviation == 0:
        return [0] * n
    reciprocal = (n * 2**48) // deviation
    return [clamp(nearest(u * reciprocal, 2**38), (-32768, 32767)) for u in centred]


def standardized(x: Row) -> Row:
    """x - mean over the standard deviation, with 10 fractional bits, as int16; the root has 5 fractional bits."""
    n = len(x)
    spread = n * sum(v * v for v in x) - sum(x) ** 2
    if spread == 0:
        return [0] * n
    reciprocal = 2**59 // math.isqrt(1024 * spread)
    return [clamp(nearest((n * v - sum(x)) * reciprocal, 2**44), (-32768, 32767)) for v in x]


@dataclass(frozen=True)
class Rescaling:
    """Accumulators to narrow integers around a zero point."""

    factors: Factors
    zero_point: int
    limits: tuple[int, int]

    def __call__(self, x: Row) -> Row:
        return [clamp(self.factors.times(k, v) + self.zero_point, self.limits) for k, v in enumerate(x)]


@dataclass(frozen=True)
class Cell:
    """One direction of an LSTM layer.  ``rows`` says where the rows of each gate i, f, j, o start."""

    hidden: int
    w_x: Affine
    w_h: Affine
    pre_x: Factors
    pre_h: Factors
    pre_limits: tuple[tuple[int, int], tuple[int, int]]
    norm_x: NormLayer | None
    norm_h: NormLayer | None
    norm_c: NormLayer | None
    gate_limits: tuple[int, int]
    rows: dict[str, int]
    gates: dict[str, Table]
    tanh_c: Table
    kept: Factors
    new: Factors
    cell_limits: tuple[int, int]
    out: Rescaling
    projection: tuple[Affine, Rescaling] | None
    reverse: bool
    state_h: str
    state_c: str

    def step(self, x: Row, h: Row, c: Row) -> tuple[Row, tuple[Row, Row]]:
        """(the output, (h, c)) after one time step: the output is h."""
        pre_x = [clamp(self.pre_x.times(k, a), self.pre_limits[0]) for k, a in enumerate(self.w_x(x))]
        pre_h = [clamp(self.pre_h.times(k, a), self.pre_limits[1]) for k, a in enumerate(self.w_h(h))]
        pre_x = self.norm_x(pre_x) if self.norm_x else pre_x
        pre_h = self.norm_h(pre_h) if self.norm_h else pre_h
        s = [clamp(a + b, self.gate_limits) for a, b in zip(pre_x, pre_h, strict=True)]
        value = {g: [self.gates[g](s[start + k]) for k in range(self.hidden)] for g, start in self.rows.items()}
        for gate in "ifo":
            value[gate] = [v - SIGMOID_ZERO_POINT for v in value[gate]]
        kept = [self.kept.times(k, value["f"][k] * c[k]) for k in range(self.hidden)]
        new = [self.new.times(k, value["i"][k] * value["j"][k]) for k in range(self.hidden)]
        c = [clamp(a + b, self.cell_limits) for a, b in zip(kept, new, strict=True)]
        read = [self.tanh_c(v) for v in (self.norm_c(c) if self.norm_c else c)]
        h = self.out([o * t for o, t in zip(value["o"], read, strict=True)])
        if self.projection:
            matrix, out = self.projection
            h = out(matrix(h))
        return h, (h, c)

    def initial(self) -> dict[str, Row]:
        """h at its zero point, c at 0, of one sequence."""
        return {self.state_h: self.initial_h, self.state_c: [0] * self.hidden}

    @property
    def initial_h(self) -> Row:
        """The zero point of h, projected or not."""
        if self.projection:
            matrix, out = self.projection
            return [out.zero_point] * len(matrix.weight)
        return [self.out.zero_point] * self.hidden


@dataclass(frozen=True)
class Network:
    """Optional embedding, layers of one or two directions, optional output layer."""

    embedding: list[Row] | None
    layers: list[list[Cell]]
    logits: Affine | None

    def initial_state(self) -> dict[str, Row]:
        """The state of one sequence before its first step."""
        state = {}
        for cell in (cell for layer in self.layers for cell in layer):
            state |= cell.initial()
        return state

    def run(self, inputs: list, state: dict[str, Row] | None = None) -> tuple[list[Row], dict[str, Row]]:
        """One sequence of token ids or of feature rows -> (outputs of each step, last state)."""
        state = dict(self.initial_state() if state is None else state)
        sequence = [self.embedding[v] for v in inputs] if self.embedding is not None else inputs
        for layer in self.layers:
            outputs: list[Row] = [[] for _ in sequence]
            for cell in layer:
                names = list(cell.initial())
                values = [state[name] for name in names]
                order = range(len(sequence))
                for t in reversed(order) if cell.reverse else order:
                    y, values = cell.step(sequence[t], *values)
                    outputs[t] = outputs[t] + y
                state |= dict(zip(names, values, strict=True))
            sequence = outputs
        return [self.logits(h) for h in sequence] if self.logits else sequence, state

    def run_batch(
        self, inputs: list[list], state: dict[str, list[Row]] | None = None
    ) -> tuple[list[list[Row]], dict[str, list[Row]]]:
        """As :meth:`run`, for nested lists ``[batch][time]...`` and states ``[batch][hidden]``."""
        runs = [
            self.run(sequence, None if state is None else {k: v[b] for k, v in state.items()})
            for b, sequence in enumerate(inputs)
        ]
        return [y for y, _ in runs], {k: [s[k] for _, s in runs] for k in self.initial_state()}


def read_network(program: Graph) -> Network:
    """The network of a program that is an LSTM stack; AssertionError at the first node that an LSTM does not have."""
    return Reader(program).network()


class Reader:
    """Follows a program from its output back to its input.  Every constant is read as Python integers."""

    def __init__(self, program: Graph) -> None:
        self.program = program
        self.nodes: dict[str, Node] = {node.output: node for node in program.walk()}
        self.scans = {name: s for s in program.nodes if isinstance(s, Scan) for name in s.outputs}
        self.visited: set[str] = set()

    def network(self) -> Network:
        (name,) = self.program.outputs
        logits = None
        if name in self.nodes and self.nodes[name].op == "linear":
            node = self.node(name, "linear")
            logits, name = self.affine(node), node.inputs[0]
        layers: list[list[Cell]] = []
        while name not in self.program.inputs and not self.is_op(name, "embedding"):
            parts = self.node(name, "concat").inputs if self.is_op(name, "concat") else (name,)
            read = [self.cell(part) for part in parts]
            (name,) = {source for _, source in read}
            layers.insert(0, [cell for cell, _ in read])
        embedding = None
        if name not in self.program.inputs:
            node = self.node(name, "embedding")
            embedding = self.integers(node, "table")
            assert node.inputs[0] in self.program.inputs
        assert self.visited == set(self.nodes), f"nodes outside the LSTM: {set(self.nodes) - self.visited}"
        return Network(embedding, layers, logits)

    def cell(self, output: str) -> tuple[Cell, str]:
        """The cell whose hidden states the sequence ``output`` collects, and the sequence that it reads."""
        scan = self.scans[output]
        h_node = self.node(scan.outputs[output], "requantize")
        (hidden_state,) = (name for name, (_, after) in scan.states.items() if after == h_node.output)
        (cell_state,) = set(scan.states) - {hidden_state}
        h_before, (c_before, c_after) = scan.states[hidden_state][0], scan.states[cell_state]

        product_node, projection = h_node, None
        if self.is_op(h_node.inputs[0], "linear"):
            matrix = self.node(h_node.inputs[0], "linear")
            projection = self.affine(matrix), self.rescaling(h_node)
            product_node = self.node(matrix.inputs[0], "requantize")
        o, tanh_c = self.product(product_node.inputs[0])
        assert len(product_node.inputs) == len(h_node.inputs) == 1
        tanh_node = self.node(tanh_c, "pwl")
        norm_c, read = self.norm(tanh_node.inputs[0])
        assert read == c_after, "tanh does not read the new cell state"

        c_node = self.node(c_after, "requantize")
        assert len(c_node.inputs) == 2
        assert c_node.attributes["zero_point"] == 0
        f, before = self.product(c_node.inputs[0])
        i, j = self.product(c_node.inputs[1])
        assert before == c_before, "the forget gate does not multiply the former cell state"

        pwl_nodes = {gate: self.node(name, "pwl") for gate, name in zip("ifjo", (i, f, j, o), strict=True)}
        assert [n.attributes["function"] for n in pwl_nodes.values()] == ["sigmoid", "sigmoid", "tanh", "sigmoid"]
        slices = {gate: self.node(node.inputs[0], "slice") for gate, node in pwl_nodes.items()}
        (sum_name,) = {node.inputs[0] for node in slices.values()}
        hidden = self.program.states[cell_state].shape[0]
        assert all(n.attributes["stop"] - n.attributes["start"] == hidden for n in slices.values())
        sum_node = self.node(sum_name, "add")
        from_x, from_h = sum_node.inputs
        if from_x not in scan.sequences:
            from_x, from_h = from_h, from_x
        w_x, pre_x, limits_x, norm_x, source = self.preactivation(scan.sequences[from_x])
        w_h, pre_h, limits_h, norm_h, recurrent = self.preactivation(from_h)
        assert recurrent == h_before, "the recurrent product does not read the former hidden state"
        assert self.program.states[hidden_state].initial == h_node.attributes["zero_point"]
        assert self.program.states[cell_state].initial == 0
        return Cell(
            hidden=hidden,
            w_x=w_x,
            w_h=w_h,
            pre_x=pre_x,
            pre_h=pre_h,
            pre_limits=(limits_x, limits_h),
            norm_x=norm_x,
            norm_h=norm_h,
            norm_c=norm_c,
            gate_limits=limits(sum_node),
            rows={gate: node.attributes["start"] for gate, node in slices.items()},
            gates={gate: self.table(node) for gate, node in pwl_nodes.items()},
            tanh_c=self.table(tanh_node),
            kept=self.factors(c_node, 0),
            new=self.factors(c_node, 1),
            cell_limits=limits(c_node),
            out=self.rescaling(product_node),
            projection=projection,
            reverse=scan.reverse,
            state_h=hidden_state,
            state_c=cell_state,
        ), source

    def preactivation(self, name: str) -> tuple[Affine, Factors, tuple[int, int], NormLayer | None, str]:
        """(matrix, factors, limits, norm, what the matrix reads) of one half of the gates' input."""
        norm, name = self.norm(name)
        node = self.node(name, "requantize")
        assert len(node.inputs) == 1
        assert node.attributes["zero_point"] == 0
        linear = self.node(node.inputs[0], "linear")
        return self.affine(linear), self.factors(node, 0), limits(node), norm, linear.inputs[0]

    def product(self, name: str) -> tuple[str, str]:
        """(sigmoid gate, other factor) of a multiply; the sigmoid's zero point is -128, the other's 0."""
        node = self.node(name, "multiply")
        a, b = node.inputs
        zero_points = (node.attributes["zero_point_a"], node.attributes["zero_point_b"])
        assert zero_points == (SIGMOID_ZERO_POINT, 0), f"{name}: zero points {zero_points}"
        return a, b

    def norm(self, name: str) -> tuple[NormLayer | None, str]:
        if not (self.is_op(name, "mad_norm") or self.is_op(name, "layer_norm")):
            return None, name
        node = self.node(name, self.nodes[name].op)
        gamma, beta = self.integers(node, "gamma"), self.integers(node, "beta")
        factors = Factors(self.integers(node, "multiplier"), self.integers(node, "shift"))
        return NormLayer(node.op, node.attributes["groups"], gamma, beta, factors, limits(node)), node.inputs[0]

    def affine(self, node: Node) -> Affine:
        return Affine(self.integers(node, "weight"), self.integers(node, "bias"))

    def table(self, node: Node) -> Table:
        knots, slopes, intercepts = (self.integers(node, role) for role in ("knots", "slopes", "intercepts"))
        return Table(knots, slopes, intercepts, node.attributes["shift"], limits(node))

    def factors(self, node: Node, k: int) -> Factors:
        return Factors(self.integers(node, f"multiplier_{k}"), self.integers(node, f"shift_{k}"))

    def rescaling(self, node: Node) -> Rescaling:
        return Rescaling(self.factors(node, 0), node.attributes["zero_point"], limits(node))

    def integers(self, node: Node, role: str) -> list:
        return self.program.tensors[node.tensors[role]].data.tolist()

    def is_op(self, name: str, op: str) -> bool:
        return name in self.nodes and self.nodes[name].op == op

    def node(self, name: str, op: str) -> Node:
        assert name in self.nodes, f"{name} is made by no operation, not by a {op}"
        node = self.nodes[name]
        assert node.op == op, f"{name} is a {node.op}, not a {op}"
        self.visited.add(name)
        return node


def limits(node: Node) -> tuple[int, int]:
    """The range to which the node saturates."""
    return node.attributes["low"], node.attributes["high"]
