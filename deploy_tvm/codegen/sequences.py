"""Values at all time steps: the memory in which they lie, and how one of their rows is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from tvm import tirx

from deploy_tvm.codegen import ops
from deploy_tvm.codegen.body import Body
from deploy_tvm.codegen.constants import Constants, padded_row, room
from deploy_tvm.codegen.convolution import Neighbourhoods
from deploy_tvm.codegen.emitter import Emitter, Expr, as_index, cast, constant, lanes_of, load
from deploy_tvm.codegen.interface import Interface, identifier
from deploy_tvm.codegen.kernels import Kernels
from deploy_tvm.codegen.rows import SLACK, Row, buffer_row, combine, scalar
from deploy_tvm.codegen.spans import part_of
from irnn.arithmetic import fixed_point
from irnn.program import Node, Program
from irnn.program.axes import Axis

Store = Callable[[Expr, Expr], None]


class Sequences:
    """What the steps of a plan share: the caller's buffers, our own, and the operations of one time step (``body``)."""

    def __init__(self, program: Program, kernels: Kernels) -> None:
        self.program = program
        self.interface = Interface(program)
        self.axes, self.batch = self.interface.axes, self.interface.axes.batch
        self.emitter, self.constants = Emitter(), Constants()
        self.body = Body(program, kernels, ops.of_kind(program.kind), self.emitter, self.constants)
        self.lanes = self.body.ops.lanes
        self.buffers: dict[str, tirx.Buffer] = {}  # of values that lie in memory
        self.memories: dict[str, tirx.Buffer] = {}
        self.lengths: dict[str, tuple[tirx.Buffer, Axis]] = {}  # an input, and what is made of it
        self.neighbourhoods: dict[str, Neighbourhoods] = {}
        self.states = dict(self.interface.before)
        # Kept between calls, and of no influence on the results: the direction of Body.in_turn.
        turn = self.constants.buffer("turn", lambda: np.zeros(1, np.int64))
        self.turn = self.emitter.bind(load(turn, 1, 0), "turn")
        self.emitter.store(turn, as_index(1) - self.turn, 0)

    def length(self, name: str, batch: Expr) -> Expr:
        """How long sequence number ``batch`` is."""
        given, made = self.lengths[name]
        length = cast(load(given, 1, batch), "int64")
        return self.emitter.bind(tirx.truncdiv(length + made.offset, as_index(made.factor)), "length")

    def rows(self, name: str) -> Expr:
        """Rows of a value, those of the whole batch."""
        axes = self.program.values[name].axes
        return self.batch * self.axes.size(axes[0]) if axes else self.batch

    def at(self, name: str, row: Expr) -> tuple[Expr, ...]:
        """Indices of row number ``row`` in a dense [B, steps, ...] buffer (or [B, ...]), without a division."""
        return (as_index(0), row) if self.program.values[name].axes else (row,)

    def position(self, row: Expr, axis: str) -> tuple[Expr, Expr]:
        """(sequence of the batch, step) of a row."""
        steps = self.axes.size(axis)
        batch = self.emitter.bind(tirx.truncdiv(row, steps), "b")
        return batch, self.emitter.bind(row - batch * steps, "t")

    def allocate(self, name: str) -> tirx.Buffer:
        """Memory for a value at all time steps; a value along a second axis has a row of its size."""
        value = self.program.values[name]
        first, second = value.axes[:1], value.axes[1:]
        size = self.axes.size(second[0]) + SLACK if second else room(math.prod(value.shape))
        shape = (self.batch, *(self.axes.size(axis) for axis in first), size)
        buffer = self.buffers[name] = self.emitter.alloc(shape, value.dtype, identifier(name))
        return buffer

    def bring(self, name: str, *leading: Expr) -> None:
        """Tell ``body`` where a row of a value lies."""
        second = self.program.values[name].axes[1:]
        self.body.bring(name, self.buffers[name], *leading, size=self.axes.size(second[0]) if second else None)

    def fetch(self, names: Iterable[str], fused: Sequence[Node], row: Expr) -> None:
        """Give ``body`` row number ``row`` of values along one axis, from memory or by the operations ``fused``."""
        for name in [*names, *(i for node in fused for i in node.inputs if self.program.values[i].shape)]:
            if name in self.buffers:
                self.bring(name, *self.at(name, row))
        for node in fused:
            if node.op in ROWS:
                belongs = part_of(node.op)
                with self.emitter.part(belongs):
                    made = self.body.rows[node.output] = ROWS[node.op](self, node, row)
                if belongs is not None:
                    made.belong(belongs)
                self.body.stored.discard(node.output)
            else:
                self.body.run([node])

    def _embedding(self, node: Node, row: Expr) -> Row:
        """A row of the table, read where it stands."""
        name = node.tensors["table"]
        return self._table_row(name, self.program.values[node.output].dtype, self._id(node, row))

    def _scaled_embedding(self, node: Node, row: Expr) -> Row:
        """Each plane's row with that row's factor, requantized where it is read."""
        index, a = self._id(node, row), node.attributes

        def factor(name: str) -> Row:
            buffer = self.constants.buffer(name, lambda: padded_row(self.program.tensors[name].data))
            return scalar(self.emitter.hold(load(buffer, 1, index)))

        terms = [
            (
                self._table_row(node.tensors[f"table_{k}"], "int8", index),
                factor(node.tensors[f"multiplier_{k}"]),
                factor(node.tensors[f"shift_{k}"]),
            )
            for k in range(a["planes"])
        ]
        dtype = self.program.values[node.output].dtype
        return fixed_point.requantize(self.body.ops, terms, 0, a["low"], a["high"], dtype)

    def _id(self, node: Node, row: Expr) -> Expr:
        """Which row of the table is read."""
        (ids,) = node.inputs
        return self.emitter.bind(load(self.buffers[ids], 1, *self.at(ids, row)), "id")

    def _table_row(self, name: str, dtype: str, index: Expr) -> Row:
        """Row ``index`` of a constant matrix, as ``dtype``, which holds it (a codebook is int16 otherwise)."""
        data = self.program.tensors[name].data
        table = data.astype(dtype) if np.array_equal(data.astype(dtype), data) else data
        # Rows follow each other without padding: a register that reaches past its row reads the next one's beginning.
        spare = -(-SLACK // table.shape[1])
        buffer = self.constants.buffer(name, lambda: np.pad(table, ((0, spare), (0, 0))))
        return buffer_row(buffer, table.shape[1], str(table.dtype), index)

    def _masked(self, node: Node, row: Expr) -> Row:
        """A row, or what stands for it behind its sequence's end."""
        source, lengths = node.inputs
        value, fill = self.program.values[node.output], node.attributes["fill"]
        batch, step = self.position(row, value.axes[0])
        inside = self.emitter.bind(step < self.length(lengths, batch), "inside")

        def function(v: Expr) -> Expr:
            lanes = lanes_of(v)
            condition = tirx.Broadcast(inside, lanes) if lanes > 1 else inside
            return tirx.Select(condition, v, constant(fill, value.dtype, lanes))

        return combine(value.dtype, function, self.body.rows[source])

    def _repeated(self, node: Node, row: Expr) -> Row:
        """The value of the sequence that the row belongs to."""
        source, value = node.inputs[0], self.program.values[node.output]
        batch, _ = self.position(row, value.axes[0])
        return buffer_row(self.buffers[source], math.prod(value.shape), value.dtype, batch)

    def storing(self, places: list[tuple[tirx.Buffer, tuple]]) -> Store:
        """A function that stores a register at its index in each of ``places``: (buffer, leading indices)."""

        def store(index: Expr, register: Expr) -> None:
            for buffer, leading in places:
                self.emitter.store(buffer, register, *leading, index)

        return store


# Operations outside of loops that need to know which row they are at.
ROWS: dict[str, Callable[[Sequences, Node, Expr], Row]] = {
    "embedding": Sequences._embedding,
    "scaled_embedding": Sequences._scaled_embedding,
    "mask": Sequences._masked,
    "repeat": Sequences._repeated,
}
