"""The independent oracle for recognizers: encoder and decoder programs of one utterance in plain Python integers.

Nothing here imports the fixed-point functions, the namespaces or the interpreter.  It knows no batch and no padding: an
utterance is as long as it is, masks do nothing and lengths are not read.  So an executor that computes a padded batch
and agrees with it on every utterance has exact masks.  Convolution and attention are written from their definitions.
"""

from __future__ import annotations

from typing import Any

from irnn.program.graph import Graph, Node, Scan
from tests.oracle import Affine, Factors, Table, clamp, nearest

Nested = Any  # an integer, or lists of them: [time][bands][channels], [time][size] ...


class UtteranceOracle:
    """Executes a program for one utterance."""

    def __init__(self, program: Graph) -> None:
        self.program = program

    def run(
        self, inputs: dict[str, Nested], state: dict[str, list[int]] | None = None
    ) -> tuple[list[Nested], dict[str, list[int]]]:
        """Inputs by name without batch axis -> (outputs, last state)."""
        state = dict(state or {name: [s.initial] * s.shape[0] for name, s in self.program.states.items()})
        values = dict(inputs)
        for item in self.program.nodes:
            if isinstance(item, Scan):
                self.scan(item, values, state)
            else:
                values[item.output] = self.node(item, [values[name] for name in item.inputs], sequences=True)
        return [values[name] for name in self.program.outputs], state

    def scan(self, scan: Scan, values: dict[str, Nested], state: dict[str, list[int]]) -> None:
        steps = range(len(values[next(iter(scan.sequences.values()))]))
        collected: dict[str, list] = {name: [None] * len(steps) for name in scan.outputs}
        for t in reversed(steps) if scan.reverse else steps:
            local = {name: values[name] for name in scan.captures}
            local |= {inner: values[outer][t] for inner, outer in scan.sequences.items()}
            local |= {before: state[name] for name, (before, _) in scan.states.items()}
            for node in scan.body:
                local[node.output] = self.node(node, [local[name] for name in node.inputs], sequences=False)
            state |= {name: local[after] for name, (_, after) in scan.states.items()}
            for outer, inner in scan.outputs.items():
                collected[outer][t] = local[inner]
        values |= collected

    def node(self, node: Node, x: list[Nested], *, sequences: bool) -> Nested:
        a = node.attributes
        match node.op:
            case "mask":
                return x[0]
            case "shorten":
                return nearest(2 * x[0] + a["factor"] - 1, 2 * a["factor"])  # the ceiling
            case "subsample":
                return [row for t, row in enumerate(x[0]) if t % a["factor"] == 0]
            case "patches":
                return self.patches(x[0], a)
            case "attention_weights":
                return self.attention_weights(node, *x[:2])
            case "attention_context":
                return self.attention_context(node, *x)
        if sequences:  # row by row of time
            return [self.row(node, [value[t] for value in x]) for t in range(len(x[0]))]
        return self.row(node, x)

    def row(self, node: Node, x: list[Nested]) -> list:
        if x and isinstance(x[0], list) and isinstance(x[0][0], list):  # [bands][...]
            if node.op == "flatten":
                return [v for band in x[0] for v in band]
            return [self.row(node, [value[k] for value in x]) for k in range(len(x[0]))]
        a, limits = node.attributes, (node.attributes.get("low"), node.attributes.get("high"))
        match node.op:
            case "embedding":
                return self.constant(node, "table")[x[0]]
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
            case "add":
                return [clamp(p + q, limits) for p, q in zip(*x, strict=True)]
            case "multiply":
                return [(p - a["zero_point_a"]) * (q - a["zero_point_b"]) for p, q in zip(*x, strict=True)]
            case "pwl":
                table = self.table(node, a["shift"], limits)
                return [table(v) for v in x[0]]
            case "slice":
                return x[0][a["start"] : a["stop"]]
            case "concat":
                return [v for part in x for v in part]
        raise AssertionError(f"the oracle has no {node.op}")

    def patches(self, x: list[list[int]], a: dict[str, Any]) -> Nested:
        """By definition: outside of the utterance and of the bands stands the integer of 0."""
        channels, (kernel_t, kernel_f), (stride_t, stride_f) = a["channels"], a["kernel"], a["strides"]
        bands = len(x[0]) // channels

        def at(t: int, f: int, c: int) -> int:
            return x[t][f * channels + c] if 0 <= t < len(x) and 0 <= f < bands else a["fill"]

        return [
            [
                [
                    at(t + dt - kernel_t // 2, f + df - kernel_f // 2, c)
                    for dt in range(kernel_t)
                    for df in range(kernel_f)
                    for c in range(channels)
                ]
                for f in range(0, bands, stride_f)
            ]
            for t in range(0, len(x), stride_t)
        ]

    def attention_weights(self, node: Node, query: list[int], keys: list[list[int]]) -> list[int]:
        a = node.attributes
        tanh = self.table(node, a["tanh_shift"], (a["tanh_low"], a["tanh_high"]))
        (v,) = self.constant(node, "weight")
        scores = []
        for key in keys:
            both = [clamp(k + q, (a["low"], a["high"])) for k, q in zip(key, query, strict=True)]
            scores.append(sum(w * tanh(s) for w, s in zip(v, both, strict=True)))
        exp, factor = self.constant(node, "table"), self.factors(node, "")
        return [exp[clamp(factor.times(0, max(scores) - score), (0, 255))] for score in scores]

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

    def constant(self, node: Node, role: str) -> list:
        return self.program.tensors[node.tensors[role]].data.tolist()

    def factors(self, node: Node, suffix: str) -> Factors:
        return Factors(self.constant(node, f"multiplier{suffix}"), self.constant(node, f"shift{suffix}"))

    def table(self, node: Node, shift: int, limits: tuple[int, int]) -> Table:
        knots, slopes, intercepts = (self.constant(node, role) for role in ("knots", "slopes", "intercepts"))
        return Table(knots, slopes, intercepts, shift, limits)
