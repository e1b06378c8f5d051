"""Plain LSTM, GRU and ReLU cells in the loops of float programs, found by what is computed, whatever the values' names.

A loop is one of them where it computes the cell's formulas and nothing else; where the gates stand among the rows of
the matrices is read off the part that each one plays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from irnn.program import Node, Program, Scan

T = TypeVar("T")


@dataclass(frozen=True)
class Cell:
    """One direction of one layer as torch has it: float32 W_x ``[gates * hidden, input]``, W_h ``[gates * hidden,
    hidden]``, b_x and b_h ``[gates * hidden]``; gates of an "lstm" in the order i, f, g, o, of a "gru" r, z, n;
    an "rnn" with ReLU has none."""

    kind: str
    w_x: np.ndarray
    w_h: np.ndarray
    b_x: np.ndarray
    b_h: np.ndarray


class _OtherCellError(Exception):
    """The loop computes something else."""


def plain_cell(program: Program, scan: Scan) -> Cell | None:
    """The plain cell that a loop and the product before it are; None where they are anything else."""
    kinds = {"gru": _gru_order, "rnn": _relu_order} if len(scan.states) == 1 else {"lstm": _lstm_order}
    for kind, order_of in kinds.items():
        try:
            loop = _Loop(program, scan)
            order = order_of(loop)
            loop.check(sorted(order) == list(range(len(order))))
        except _OtherCellError:
            continue
        parts = [
            np.concatenate([np.split(program.tensors[node.tensors[role]].data, len(order))[k] for k in order])
            for role in ("weight", "bias")
            for node in (loop.input_product, loop.recurrent_product)
        ]
        return Cell(kind, *parts)
    return None


class _Loop:
    """A loop's body by what makes each value.  Whatever is not as it is asked for raises ``_OtherCellError``.

    input_product: the product before the loop, of which every step reads a row.  recurrent_product: the one inside.
    """

    def __init__(self, program: Program, scan: Scan) -> None:
        self.scan, self.made = scan, {node.output: node for node in scan.body}
        sequence = self.only(list(scan.sequences))
        outer = [node for node in program.nodes if isinstance(node, Node)]
        self.input_product = self.only(
            [node for node in outer if node.output == scan.sequences[sequence] and node.op == "linear"]
        )
        self.recurrent_product = self.only([node for node in scan.body if node.op == "linear"])
        self.x, self.h = sequence, self.recurrent_product.output
        self.hidden = program.tensors[self.recurrent_product.tensors["weight"]].data.shape[1]

    def check(self, holds: bool) -> None:
        if not holds:
            raise _OtherCellError

    def only(self, found: Sequence[T]) -> T:
        self.check(len(found) == 1)
        return found[0]

    def made_by(self, value: str, op: str) -> bool:
        """Whether an ``op`` of the body makes a value."""
        return value in self.made and self.made[value].op == op

    def node(self, value: str, op: str) -> Node:
        """What makes a value, an ``op``."""
        self.check(self.made_by(value, op))
        return self.made[value]

    def one_by(self, node: Node, op: str) -> tuple[Node, str]:
        """Of the two values that a node takes: what makes the one that an ``op`` makes, and the other value."""
        made = self.only([value for value in node.inputs if self.made_by(value, op)])
        return self.made[made], self.other(node, made)

    def other(self, node: Node, value: str) -> str:
        """The other one of the two values that a node takes."""
        return self.only([taken for taken in node.inputs if taken != value])

    def place(self, value: str, source: str) -> int:
        """Which part of ``source``, of the state's size, a value is."""
        part = self.node(value, "slice")
        place, rest = divmod(part.attributes["start"], self.hidden)
        self.check(part.inputs == (source,) and not rest and part.attributes["stop"] == (place + 1) * self.hidden)
        return place

    def sum(self) -> str:
        """W_x x + W_h h."""
        sums = [node.output for node in self.scan.body if node.op == "add" and set(node.inputs) == {self.x, self.h}]
        return self.only(sums)

    def blend(self, after: str, before: str) -> tuple[str, Node]:
        """A state that is ``gate * before`` plus another product: the gate and that product."""
        products = [self.node(value, "multiply") for value in self.node(after, "add").inputs]
        keep = self.only([product for product in products if before in product.inputs])
        return self.other(keep, before), self.only([product for product in products if product is not keep])


def _lstm_order(loop: _Loop) -> list[int]:
    """Where i, f, g, o stand: c' = f c + i g, h' = o tanh(c')."""
    states = loop.scan.states.values()
    c, c_after = loop.only([state for state in states if loop.made_by(state[1], "add")])
    h, h_after = loop.only([state for state in states if state[0] != c])
    loop.check(loop.recurrent_product.inputs == (h,) and list(loop.scan.outputs.values()) == [h_after])
    forget, new = loop.blend(c_after, c)
    candidate, write = loop.one_by(new, "tanh")
    tanh_c, output = loop.one_by(loop.node(h_after, "multiply"), "tanh")
    loop.check(tanh_c.inputs == (c_after,))
    sigmoids = [loop.node(gate, "sigmoid") for gate in (write, forget, output)]
    return [loop.place(gate.inputs[0], loop.sum()) for gate in (*sigmoids[:2], candidate, sigmoids[2])]


def _gru_order(loop: _Loop) -> list[int]:
    """Where r, z, n stand: n = tanh(W_x x + r W_h h), h' = (1 - z) n + z h."""
    h, h_after = loop.only(list(loop.scan.states.values()))
    loop.check(loop.recurrent_product.inputs == (h,) and list(loop.scan.outputs.values()) == [h_after])
    update, new = loop.blend(h_after, h)
    complement, candidate = loop.one_by(new, "complement")
    loop.check(complement.inputs == (update,))
    gated, x_n = loop.one_by(loop.node(loop.node(candidate, "tanh").inputs[0], "add"), "multiply")
    reset, h_n = loop.one_by(gated, "sigmoid")
    place = loop.place(x_n, loop.x)
    loop.check(place == loop.place(h_n, loop.h))
    gates = (reset, loop.node(update, "sigmoid"))
    return [*(loop.place(gate.inputs[0], loop.sum()) for gate in gates), place]


def _relu_order(loop: _Loop) -> list[int]:
    """h' = relu(W_x x + W_h h): one part, the whole."""
    h, h_after = loop.only(list(loop.scan.states.values()))
    loop.check(loop.recurrent_product.inputs == (h,) and list(loop.scan.outputs.values()) == [h_after])
    loop.check(loop.node(h_after, "relu").inputs == (loop.sum(),))
    return [0]
