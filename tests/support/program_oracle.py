"""The independent evaluator: any program, operation by operation, in Python's unbounded integers.

Nothing here imports the fixed-point functions, their namespaces, the registry of operations or the interpreter: only
the graph's plain data.  It computes one sequence at a time as nested lists, from the definitions of
``docs/arithmetic.md`` and ``docs/operations.md``; convolution, attention and masks are written as they are defined.
Given a padded sequence with its length it computes the padding as every executor must; given a sequence alone, it knows
of no padding, so that an executor that agrees with it on every sequence of a padded batch has exact masks.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product
from math import prod
from typing import Any

import numpy as np

from irnn.program.graph import Graph, Node, Scan
from tests.support.oracle import Affine, Factors, NormLayer, Table, clamp, nearest

Nested = Any  # an integer, or lists of them: [time][bands][channels], [time][size] ...
State = dict[str, Nested]


class ProgramOracle:
    """Executes a program for one sequence, or for each of a batch."""

    def __init__(self, program: Graph) -> None:
        self.program = program

    def run(self, inputs: dict[str, Nested], state: State | None = None) -> tuple[list[Nested], State]:
        """Inputs by name without batch axis -> (outputs, last state)."""
        state = dict(state or {name: [s.initial] * s.shape[0] for name, s in self.program.states.items()})
        values = dict(inputs)
        for item in self.program.nodes:
            if isinstance(item, Scan):
                self.scan(item, values, state)
            else:
                values[item.output] = self.node(item, [values[name] for name in item.inputs])
        return [values[name] for name in self.program.outputs], state

    def run_batch(
        self, inputs: dict[str, np.ndarray], state: dict[str, np.ndarray] | None = None
    ) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """As :meth:`run`, for arrays with a batch axis; the results have the dtypes that the program declares."""
        batch = len(next(iter(inputs.values())))
        runs = []
        for row in range(batch):
            own = None if state is None else {name: array[row].tolist() for name, array in state.items()}
            runs.append(self.run({name: array[row].tolist() for name, array in inputs.items()}, own))
        values, states = self.program.values, self.program.states
        outputs = [
            np.array([found[k] for found, _ in runs], values[name].dtype) for k, name in enumerate(self.program.outputs)
        ]
        return outputs, {name: np.array([last[name] for _, last in runs], s.dtype) for name, s in states.items()}

    def scan(self, scan: Scan, values: dict[str, Nested], state: State) -> None:
        steps = range(len(values[next(iter(scan.sequences.values()))]))
        length = len(steps) if scan.lengths is None else values[scan.lengths]
        own = state
        state = {name: values[scan.starts[name]] if name in scan.starts else own[name] for name in scan.states}
        collected: dict[str, list] = {name: [None] * len(steps) for name in scan.outputs}
        for t in reversed(steps) if scan.reverse else steps:
            local = {name: values[name] for name in scan.captures}
            local |= {inner: values[outer][t] for inner, outer in scan.sequences.items()}
            local |= {before: state[name] for name, (before, _) in scan.states.items()}
            for node in scan.body:
                local[node.output] = self.node(node, [local[name] for name in node.inputs])
            if t < length:
                state |= {name: local[after] for name, (_, after) in scan.states.items()}
            for outer, inner in scan.outputs.items():
                collected[outer][t] = local[inner]
        values |= collected
        values |= {outer: state[name] for outer, name in scan.finals.items()}
        own |= {name: array for name, array in state.items() if name not in scan.starts}

    def node(self, node: Node, x: list[Nested]) -> Nested:
        a = node.attributes
        match node.op:
            case "mask":
                return [row if t < x[1] else filled(row, a["fill"]) for t, row in enumerate(x[0])]
            case "shorten":
                return (x[0] + a["offset"]) // a["factor"] if "offset" in a else -(-x[0] // a["factor"])
            case "subsample":
                return [row for t, row in enumerate(x[0]) if t % a["factor"] == 0]
            case "last":
                return x[0][x[1] - 1] if len(x) == 2 else x[0][len(x[0]) - 1]
            case "step":
                return x[0][a["index"]]
            case "repeat":
                return [x[0] for _ in x[1]]
            case "time_mean":
                valid = x[0] if len(x) == 1 else x[0][: x[1]]
                sums = [sum(v - a["zero_point"] for v in column) for column in zip(*valid, strict=True)]
                return [nearest(256 * total, len(valid)) for total in sums]
            case "softmax_mean":
                return self.softmax_mean(node, *x)
            case "time_max":
                valid = x[0] if len(x) == 1 else x[0][: x[1]]
                return [max(column) for column in zip(*valid, strict=True)]
            case "patches":
                return [[[v for tap in taps for v in tap] for taps in bands] for bands in windows(x[0], a, a["fill"])]
            case "max_pool":
                found = windows(x[0], a, None)
                seen = [[[[v for v in c if v is not None] for c in zip(*t, strict=True)] for t in f] for f in found]
                return [[max(c) for t in bands for c in t] for bands in seen]
            case "mean_pool":
                found = windows(x[0], a, a["zero_point"])
                return [
                    [sum(v - a["zero_point"] for v in c) for taps in bands for c in zip(*taps, strict=True)]
                    for bands in found
                ]
            case "attention_weights":
                return self.attention_weights(node, *x)
            case "attention_context":
                return self.attention_context(node, *x)
            case "embedding":
                return nested(lambda place: self.constant(node, "table")[place], 0, x)
            case "scaled_embedding":
                return nested(lambda place: self.scaled_row(node, place), 0, x)
            case "flatten":
                return nested(lambda bands: [v for band in bands for v in band], 2, x)
        return nested(lambda *rows: self.row(node, list(rows)), 1, x)

    def scaled_row(self, node: Node, place: int) -> list[int]:
        """One row of the table that has several planes: each with the factor of that row."""
        limits, planes = (node.attributes["low"], node.attributes["high"]), range(node.attributes["planes"])
        rows = [self.constant(node, f"table_{k}")[place] for k in planes]
        factors = [self.factors(node, f"_{k}") for k in planes]
        columns = zip(*rows, strict=True)
        return [clamp(sum(f.times(place, q) for f, q in zip(factors, c, strict=True)), limits) for c in columns]

    def row(self, node: Node, x: list[list[int]]) -> list[int]:
        a, limits = node.attributes, (node.attributes.get("low"), node.attributes.get("high"))
        match node.op:
            case "linear":
                return Affine(self.constant(node, "weight"), self.constant(node, "bias"))(x[0])
            case "requantize" | "residual":
                zeros = a.get("zero_points", [0] * len(x))
                factors = [self.factors(node, f"_{k}") for k in range(len(x))]
                return [
                    clamp(
                        sum(f.times(k, v[k] - z) for f, v, z in zip(factors, x, zeros, strict=True)) + a["zero_point"],
                        limits,
                    )
                    for k in range(len(x[0]))
                ]
            case "subtract":
                first, second = (self.factors(node, f"_{k}") for k in (0, 1))
                (za, zb), end = a["zero_points"], a["zero_point"]
                pairs = enumerate(zip(*x, strict=True))
                return [clamp(first.times(k, p - za) + second.times(k, zb - q) + end, limits) for k, (p, q) in pairs]
            case "add":
                return [clamp(p + q, limits) for p, q in zip(*x, strict=True)]
            case "multiply":
                return [(p - a["zero_point_a"]) * (q - a["zero_point_b"]) for p, q in zip(*x, strict=True)]
            case "affine":
                rows = zip(self.constant(node, "gain"), x[0], self.constant(node, "bias"), strict=True)
                return [g * (v - a["zero_point"]) + b for g, v, b in rows]
            case "complement":
                return [-1 - v for v in x[0]]
            case "top":
                places = sorted(range(len(x[0])), key=lambda k: (-x[0][k], k))[: a["count"]]
                return [x[0][k] for k in places] + places
            case "minimum":
                return [min(p, q) for p, q in zip(*x, strict=True)]
            case "pwl":
                table = self.table(node, a["shift"], limits)
                return [table(v) for v in x[0]]
            case "mad_norm" | "layer_norm":
                gamma, beta = self.constant(node, "gamma"), self.constant(node, "beta")
                return NormLayer(node.op, a["groups"], gamma, beta, self.factors(node, ""), limits)(x[0])
            case "mod_relu":
                bias = self.constant(node, "bias")
                return [clamp((v > 0) * max(v + b, 0) - (v < 0) * max(b - v, 0), limits)
                        for v, b in zip(x[0], bias, strict=True)]  # fmt: skip
            case "multibit":
                return run_time_codes(x[0], a["zero_point"], a["codes"])
            case "slice":
                return x[0][a["start"] : a["stop"]]
            case "concat":
                return [v for part in x for v in part]
        raise AssertionError(f"the oracle has no {node.op}")

    def attention_weights(self, node: Node, query: list[int], keys: list[list[int]], length: int) -> list[int]:
        a = node.attributes
        tanh = self.table(node, a["tanh_shift"], (a["tanh_low"], a["tanh_high"]))
        (v,) = self.constant(node, "weight")
        scores = []
        for key in keys[:length]:
            both = [clamp(k + q, (a["low"], a["high"])) for k, q in zip(key, query, strict=True)]
            scores.append(sum(w * tanh(s) for w, s in zip(v, both, strict=True)))
        exp, factor = self.constant(node, "table"), self.factors(node, "")
        weights = [exp[clamp(factor.times(0, max(scores) - score), (0, 255))] for score in scores]
        return weights + [0] * (len(keys) - length)

    def attention_context(self, node: Node, weights: list[int], values: list[list[int]]) -> list[int]:
        a, factor = node.attributes, self.factors(node, "")
        reciprocal = 2**48 // sum(weights)
        context = []
        for k in range(len(values[0])):
            total = sum(e * (row[k] - a["zero_point_values"]) for e, row in zip(weights, values, strict=True))
            assert abs(total * reciprocal) < 2**63
            mean = nearest(total * reciprocal, 2**32)
            context.append(clamp(factor.times(0, mean) + a["zero_point"], (a["low"], a["high"])))
        return context

    def softmax_mean(self, node: Node, score: list[list[int]], values: list[list[int]], *length: int) -> list[int]:
        a, count = node.attributes, length[0] if length else len(score)
        exp, factor, mean_factor = self.constant(node, "table"), self.factors(node, ""), self.factors(node, "_mean")
        best = max(row[0] for row in score[:count])
        weights = [exp[clamp(factor.times(0, best - row[0]), (0, 255))] for row in score[:count]]
        reciprocal, result = 2**48 // sum(weights), []
        for k in range(len(values[0])):
            pairs = zip(weights, values[:count], strict=True)
            mean = nearest(sum(e * (row[k] - a["zero_point_values"]) for e, row in pairs) * reciprocal, 2**32)
            result.append(clamp(mean_factor.times(0, mean) + a["zero_point"], (a["low"], a["high"])))
        return result

    def constant(self, node: Node, role: str) -> list:
        return self.program.tensors[node.tensors[role]].data.tolist()

    def factors(self, node: Node, suffix: str) -> Factors:
        return Factors(self.constant(node, f"multiplier{suffix}"), self.constant(node, f"shift{suffix}"))

    def table(self, node: Node, shift: int, limits: tuple[int, int]) -> Table:
        knots, slopes, intercepts = (self.constant(node, role) for role in ("knots", "slopes", "intercepts"))
        return Table(knots, slopes, intercepts, shift, limits)


def windows(x: list[list[int]], a: dict[str, Any], outside: int | None) -> Nested:
    """[time'][band'][tap][channel] by definition: a window lies wherever it fits the sequence and its border."""
    channels, kernel, strides = a["channels"], a["kernel"], a["strides"]
    bands = len(x[0]) // channels
    border = a.get("padding", [[size // 2, (size - 1) // 2] for size in kernel])
    apart = a.get("dilation", [1, 1])

    def firsts(axis: int, size: int) -> range:
        before, behind = border[axis]
        return range(-before, size + behind - apart[axis] * (kernel[axis] - 1), strides[axis])

    def at(t: int, f: int) -> list:
        inside = 0 <= t < len(x) and 0 <= f < bands
        return x[t][f * channels : (f + 1) * channels] if inside else [outside] * channels

    return [
        [
            [at(t + dt * apart[0], f + df * apart[1]) for dt in range(kernel[0]) for df in range(kernel[1])]
            for f in firsts(1, bands)
        ]
        for t in firsts(0, len(x))
    ]


def run_time_codes(x: list[int], zero_point: int, count: int) -> list[int]:
    """By definition: greedy codes, then twice the coefficients of least squares and the nearest of all sums."""
    size, fraction = len(x), 16
    centred = [v - zero_point for v in x]
    left, rows, beta = [v * fraction for v in centred], [], []
    for _ in range(count):
        rows.append([-1 if v < 0 else 1 for v in left])
        beta.append(nearest(sum(map(abs, left)), size))
        left = [v - beta[-1] * b for v, b in zip(left, rows[-1], strict=True)]
    for _ in range(2):
        gram = [[sum(p * q for p, q in zip(a, b, strict=True)) for b in rows] for a in rows]
        right = [sum(b * v for b, v in zip(row, centred, strict=True)) for row in rows]
        if (whole := leibniz(gram)) != 0:
            columns = [
                [r if k == j else g for k, g in enumerate(row)]
                for j in range(count)
                for row, r in zip(gram, right, strict=True)
            ]
            minors = [leibniz(columns[j * count : (j + 1) * count]) for j in range(count)]
            beta = [clamp(nearest(fraction * minor, whole), (-32767, 32767)) for minor in minors]
        # Of those equally near the largest value, of equal values the largest number: the last bits first.
        codes = list(product((-1, 1), repeat=count))
        numbered = sorted(
            (tuple(reversed(code)) for code in codes), key=lambda c: sum(2**j * (b > 0) for j, b in enumerate(c))
        )
        values = [sum(b * c for b, c in zip(beta, code, strict=True)) for code in numbered]
        best = [max(range(2**count), key=lambda n: (-abs(v * fraction - values[n]), values[n], n)) for v in centred]
        rows = [[numbered[n][j] for n in best] for j in range(count)]
    return [clamp(sum(b * row[k] for b, row in zip(beta, rows, strict=True)), (-4080, 4080)) for k in range(size)]


def leibniz(matrix: list[list[int]]) -> int:
    """The determinant as the sum over all permutations."""
    total = 0
    for order in permutations(range(len(matrix))):
        turned = sum(order[i] > order[j] for i in range(len(order)) for j in range(i + 1, len(order)))
        total += (-1) ** turned * prod(matrix[i][k] for i, k in enumerate(order))
    return total


def depth(x: Nested) -> int:
    """How many lists stand around the integers."""
    return 1 + depth(x[0]) if isinstance(x, list) else 0


def nested(function: Callable, inner: int, x: list[Nested]) -> Nested:
    """``function`` of the parts of ``x`` that are ``inner`` lists deep, in the lists that stand around them."""
    if depth(x[0]) == inner:
        return function(*x)
    return [nested(function, inner, list(parts)) for parts in zip(*x, strict=True)]


def filled(x: Nested, value: int) -> Nested:
    """``value`` in the form of ``x``."""
    return [filled(part, value) for part in x] if isinstance(x, list) else value
