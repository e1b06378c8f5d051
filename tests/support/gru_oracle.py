"""The independent oracle for GRU networks, in Python integers, from the arithmetic contract; see ``oracle``."""

from __future__ import annotations

from dataclasses import dataclass

from irnn.program.graph import Graph, Node
from tests.support.oracle import (
    SIGMOID_ZERO_POINT,
    Affine,
    Factors,
    Network,
    NormLayer,
    Reader,
    Rescaling,
    Row,
    Table,
    clamp,
    limits,
    read_network,
)

SIGMOID_STEPS = 255


@dataclass(frozen=True)
class GruCell:
    """One direction of a GRU layer.  ``rows`` says where the rows of each gate r, z, n start."""

    hidden: int
    w_x: Affine
    w_h: Affine
    pre_x: Factors
    pre_h: Factors
    pre_limits: tuple[tuple[int, int], tuple[int, int]]
    norm_x: NormLayer | None
    norm_h: NormLayer | None
    gate_limits: tuple[int, int]
    rows: dict[str, int]
    gates: dict[str, Table]
    candidate: tuple[Factors, Factors]
    candidate_limits: tuple[int, int]
    new: Factors
    kept: Factors
    state_limits: tuple[int, int]
    read: Rescaling
    written: Rescaling
    reverse: bool
    state_h: str

    def initial(self) -> dict[str, Row]:
        """h at 0, which is its zero point."""
        return {self.state_h: [0] * self.hidden}

    def step(self, x: Row, h: Row) -> tuple[Row, tuple[Row]]:
        """(the output, (h,)) after one time step: the output is h at 8 bits."""
        pre_x = [clamp(self.pre_x.times(k, a), self.pre_limits[0]) for k, a in enumerate(self.w_x(x))]
        pre_h = [clamp(self.pre_h.times(k, a), self.pre_limits[1]) for k, a in enumerate(self.w_h(self.read(h)))]
        pre_x = self.norm_x(pre_x) if self.norm_x else pre_x
        pre_h = self.norm_h(pre_h) if self.norm_h else pre_h
        after = []
        for k in range(self.hidden):
            r, z = (self.gate(name, k, pre_x, pre_h) for name in "rz")
            n_x, n_h = (part[self.rows["n"] + k] for part in (pre_x, pre_h))
            total = self.candidate[0].times(k, n_x) + self.candidate[1].times(k, r * n_h)
            n = self.gates["n"](clamp(total, self.candidate_limits))
            total = self.new.times(k, (SIGMOID_STEPS - z) * n) + self.kept.times(k, z * h[k])
            after.append(clamp(total, self.state_limits))
        return self.written(after), (after,)

    def gate(self, name: str, k: int, pre_x: Row, pre_h: Row) -> int:
        """r or z of unit k, 0 to 255."""
        place = self.rows[name] + k
        return self.gates[name](clamp(pre_x[place] + pre_h[place], self.gate_limits)) - SIGMOID_ZERO_POINT


def read_stack(program: Graph) -> Network:
    """The network of a program that is a stack of LSTM or of GRU layers."""
    gru = any(node.op == "complement" for node in program.walk())
    return GruReader(program).network() if gru else read_network(program)


class GruReader(Reader):
    """Follows a GRU's wiring; an AssertionError at the first node that a GRU does not have."""

    def cell(self, output: str) -> tuple[GruCell, str]:
        """The cell whose outputs the sequence ``output`` collects, and the sequence that it reads."""
        scan = self.scans[output]
        ((state, (before, after)),) = scan.states.items()
        written = self.node(scan.outputs[output], "residual")
        assert written.inputs == (after,), "the output is not the new state"
        h_node = self.node(after, "requantize")
        assert h_node.attributes["zero_point"] == 0
        complement, n_name = self.product(h_node.inputs[0])
        z_name, kept = self.product(h_node.inputs[1])
        assert self.node(complement, "complement").inputs == (z_name,), "the two products have gates of their own"
        assert kept == before, "z does not multiply the former state"
        n_node, z_node = self.node(n_name, "pwl"), self.node(z_name, "pwl")
        candidate = self.node(n_node.inputs[0], "requantize")
        assert candidate.attributes["zero_point"] == 0
        x_part = self.node(candidate.inputs[0], "slice")
        r_name, h_name = self.product(candidate.inputs[1])
        r_node, h_part = self.node(r_name, "pwl"), self.node(h_name, "slice")
        functions = [node.attributes["function"] for node in (r_node, z_node, n_node)]
        assert functions == ["sigmoid", "sigmoid", "tanh"]
        slices = {"r": self.node(r_node.inputs[0], "slice"), "z": self.node(z_node.inputs[0], "slice"), "n": x_part}
        sum_node = self.node(slices["r"].inputs[0], "add")
        assert slices["z"].inputs == (sum_node.output,)
        assert x_part.attributes == h_part.attributes
        assert set(sum_node.inputs) == {x_part.inputs[0], h_part.inputs[0]}
        return self.made(scan, state, sum_node, slices, (r_node, z_node, n_node), candidate, h_node, h_part, written)

    def made(
        self,
        scan: object,
        state: str,
        sum_node: Node,
        slices: dict[str, Node],
        tables: tuple[Node, Node, Node],
        candidate: Node,
        h_node: Node,
        h_part: Node,
        written: Node,
    ) -> tuple[GruCell, str]:
        """The cell, from the nodes that were found."""
        w_x, pre_x, limits_x, norm_x, source = self.preactivation(scan.sequences[slices["n"].inputs[0]])
        w_h, pre_h, limits_h, norm_h, recurrent = self.preactivation(h_part.inputs[0])
        read = self.node(recurrent, "residual")
        assert read.inputs == (scan.states[state][0],), "the recurrent product does not read the former state"
        assert read.attributes["zero_points"] == written.attributes["zero_points"] == [0]
        assert self.program.states[state].initial == 0
        return GruCell(
            hidden=self.program.states[state].shape[0],
            w_x=w_x,
            w_h=w_h,
            pre_x=pre_x,
            pre_h=pre_h,
            pre_limits=(limits_x, limits_h),
            norm_x=norm_x,
            norm_h=norm_h,
            gate_limits=limits(sum_node),
            rows={gate: node.attributes["start"] for gate, node in slices.items()},
            gates={gate: self.table(node) for gate, node in zip("rzn", tables, strict=True)},
            candidate=(self.factors(candidate, 0), self.factors(candidate, 1)),
            candidate_limits=limits(candidate),
            new=self.factors(h_node, 0),
            kept=self.factors(h_node, 1),
            state_limits=limits(h_node),
            read=self.rescaling(read),
            written=self.rescaling(written),
            reverse=scan.reverse,
            state_h=state,
        ), source
