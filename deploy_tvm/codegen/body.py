"""Lowers a list of operations on one time step, in a scan's body or outside of it: nodes to rows, rows to loops."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.constants import BLOCK, Constants, padded_row, room
from deploy_tvm.codegen.emitter import Emitter, Expr, as_index
from deploy_tvm.codegen.kernels import Kernels
from deploy_tvm.codegen.kernels.base import LinearKernel
from deploy_tvm.codegen.kernels.choice import Choice
from deploy_tvm.codegen.row_ops import RowOps
from deploy_tvm.codegen.rows import Block, Row, buffer_row, number, part, segments, whole_registers
from deploy_tvm.codegen.spans import Part, part_of
from irnn.program import Node, Program


@dataclass(frozen=True)
class Memory:
    """Rows ``[B, places, size]`` of sequence number ``batch``; registers may be read past a row's end."""

    buffer: tirx.Buffer
    batch: Expr
    places: Expr
    size: int

    def row(self, place: Expr) -> Row:
        """The row at one place."""
        return buffer_row(self.buffer, self.size, str(self.buffer.dtype), self.batch, place)


@dataclass(frozen=True)
class Operation:
    """How one step of an operation is emitted: ``emit`` gives the row of its output.

    ``in_memory``: of the inputs, how many must lie in memory first (they are read more than once).  ``stored``: the
    output lies in memory.  ``elementwise``: element k reads element k of its only input, so that a product's loops
    may finish it.  ``cheap``: may be done again by each product that reads it.
    """

    emit: Callable[[Body, Node], Row]
    in_memory: int = 0
    stored: bool = False
    elementwise: bool = False
    cheap: bool = False


class Body:
    """Operations of one time step.  ``rows`` maps the names of values to rows; those in ``stored`` are in memory."""

    def __init__(
        self,
        program: Program,
        kernels: Kernels,
        operations: Mapping[str, Operation],
        emitter: Emitter,
        constants: Constants,
    ) -> None:
        self.program, self.kernels, self.operations = program, kernels, operations
        self.emitter, self.constants = emitter, constants
        self.ops: RowOps = kernels.ops(emitter)
        # Smallest and largest integer of each value, proved.
        self.choice = Choice(program, kernels)
        self.ranges = self.choice.ranges
        self.rows: dict[str, Row] = {}
        self.stored: set[str] = set()
        self.turn: Expr = as_index(0)
        # Products that may have been made before their turn: accumulators, and whether they have.
        self.early: dict[str, tuple[tirx.Buffer, Expr]] = {}
        # What an attention looks at, inside of a loop: memories of the present sequence, and how long they are.
        self.memories: dict[str, Memory] = {}
        self.lengths: dict[str, Expr] = {}

    def bring(self, name: str, buffer: tirx.Buffer, *leading: Expr, size: Expr | None = None) -> None:
        """Declare that value ``name`` lies in ``buffer`` at the indices ``leading``.

        size: of a row that has as many elements as a memory has places.
        """
        value = self.program.values[name]
        self.rows[name] = buffer_row(buffer, math.prod(value.shape) if size is None else size, value.dtype, *leading)
        self.stored.add(name)

    def run(self, nodes: Iterable[Node]) -> None:
        """Lower ``nodes``; what need not be in memory stays lazy and is fused into the loop that uses it."""
        for node in nodes:
            operation = self.operations[node.op]
            self.materialize(node.inputs[: operation.in_memory])
            self.apply(node)
            if operation.stored:
                self.stored.add(node.output)

    def apply(self, node: Node) -> Row:
        """The output of ``node``, as a row of its inputs' rows."""
        belongs = part_of(node.op)
        with self.emitter.part(belongs):
            row = self.rows[node.output] = self.operations[node.op].emit(self, node)
        if belongs is not None:
            row.belong(belongs)
        return row

    def materialize(self, names: Iterable[str]) -> None:
        """Put values into scratch memory."""
        values = {name: self.program.values[name] for name in dict.fromkeys(names) if name not in self.stored}
        buffers = {name: self.emitter.alloc((room(v.shape[0]),), v.dtype, "row") for name, v in values.items()}
        self.store({name: self._into(buffer) for name, buffer in buffers.items()})
        for name, buffer in buffers.items():
            self.bring(name, buffer)

    def _into(self, buffer: tirx.Buffer) -> Callable[[Expr, Expr], None]:
        return lambda index, register: self.emitter.store(buffer, register, index)

    def store(self, places: dict[str, Callable[[Expr, Expr], None]]) -> None:
        """Evaluate values, those of one size in one loop; ``places[name](index, register)`` stores a register."""
        by_size: dict[Any, list[str]] = {}
        for name in places:
            size = self.rows[name].size
            by_size.setdefault(size if isinstance(size, int) else str(size), []).append(name)
        for names in by_size.values():
            breaks = frozenset().union(*(self.rows[name].breaks for name in names))
            size = self.rows[names[0]].size
            # In ascending order: a register that reaches past its segment is overwritten by the next one.
            for start, stop in segments(Row(size, "", lambda block, at: None, breaks)):
                whole, rest = whole_registers(start, stop, self.ops.lanes)
                with self.emitter.loop(whole + bool(rest)) as i:
                    block = Block(self.emitter, i * self.ops.lanes, self.ops.lanes)
                    registers = [block.at(self.rows[name], start) for name in names]
                    for name, register in zip(names, registers, strict=True):
                        places[name](block.index + start, register)

    def matvec(self, node: Node) -> Row:
        """``linear`` on one vector: its accumulators, in memory."""
        rows, (kernel, _) = self.program.values[node.output].shape[0], self.packed(node)
        if node.output in self.early:
            acc, done = self.early[node.output]
            with self.emitter.when(tirx.Not(done)):
                self.multiply(node, acc)
        else:
            acc = self.accumulators(node)
            self.multiply(node, acc)
        return buffer_row(acc, rows, kernel.accumulator)

    def accumulators(self, node: Node) -> tirx.Buffer:
        """Memory for the accumulators of a ``linear`` on one vector."""
        rows, (kernel, _) = self.program.values[node.output].shape[0], self.packed(node)
        return self.emitter.alloc(
            (kernel.blocks(rows) * kernel.block_rows + room(0) + BLOCK,), kernel.accumulator, "acc"
        )

    def multiply(self, node: Node, acc: tirx.Buffer) -> None:
        """Fill the accumulators of a ``linear`` on one vector."""
        emitter, rows, x = self.emitter, self.program.values[node.output].shape[0], self.rows[node.inputs[0]]
        kernel, packed = self.packed(node)
        operand = kernel.allocate(emitter, 1, x.length)
        with emitter.part(Part.OPERAND):
            kernel.fill(emitter, self.ops, operand, 0, x)

        def block_of(kernel: LinearKernel, block: Expr, first: Expr) -> None:
            (registers,) = kernel.tile(emitter, operand, [0], packed, block)
            for u, register in enumerate(registers):
                emitter.store(acc, register, first + u * kernel.lanes)

        with emitter.part(Part.PRODUCT):
            self.in_blocks(kernel, rows, block_of)

    def in_blocks(self, kernel: LinearKernel, rows: int, emit: Callable[[LinearKernel, Expr, Expr], None]) -> None:
        """``emit(kernel, block, its first row)`` for each block in turn; the last may take fewer registers."""
        last, blocks = kernel.of_last(rows, self.ops.lanes), kernel.blocks(rows)
        whole = blocks - (last is not kernel)
        if whole:
            with self.emitter.loop(whole, "block") as counted:
                block = self.in_turn(counted, whole)
                emit(kernel, block, self.emitter.bind(block * kernel.block_rows, "first"))
        if last is not kernel:
            emit(last, as_index(whole), as_index(whole * kernel.block_rows))

    def in_turn(self, block: Expr, blocks: int) -> Expr:
        """The block to multiply in round ``block``: from the first to the last, or back where ``turn`` is 1.

        A step reads all weights once.  Where they exceed the cache, walking forth and back in turn finds in it what the
        last step read last; walking forth each time finds nothing.
        """
        return self.emitter.bind(block + self.turn * (blocks - 1 - 2 * block), "block")

    def packed(self, node: Node) -> tuple[LinearKernel, dict[str, tirx.Buffer]]:
        """(kernel, its packed constants as parameters) of a ``linear``."""
        tensors = self.program.tensors
        weight, bias = tensors[node.tensors["weight"]], tensors[node.tensors["bias"]]
        kernel = self.choice.kernel(node)
        arrays: dict[str, np.ndarray] | None = None

        def make(role: str) -> np.ndarray:
            nonlocal arrays
            arrays = arrays or kernel.pack(kernel.as_read(weight.data), bias.data)
            return arrays[role]

        stem = kernel.form + node.tensors["weight"] + "|" + node.tensors["bias"]
        buffers = {role: self.constants.buffer(f"{stem}|{role}", partial(make, role)) for role in kernel.roles}
        return kernel, buffers

    def constant(self, name: str, start: int = 0, stop: int | None = None) -> Row:
        """A program's tensor, or a stretch of it, as a row; equal elements become a number in the code."""
        return self.known(name, self.program.tensors[name].data.reshape(-1), start, stop)

    def known(self, name: str, array: np.ndarray, start: int = 0, stop: int | None = None) -> Row:
        """As :meth:`constant`, of an array that ``name`` alone stands for."""
        dtype, wanted = str(array.dtype), array[start:stop]
        if (wanted == wanted[0]).all():
            return number(wanted[0].item(), dtype)
        buffer = self.constants.buffer(name, lambda: padded_row(array))
        return part(buffer_row(buffer, array.size, dtype), start, start + wanted.size)

    def dtype(self, node: Node) -> str:
        """The dtype of the output of ``node``."""
        return self.program.values[node.output].dtype
