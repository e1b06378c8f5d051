"""Lowers a list of operations on one time step, in a scan's body or outside of it: nodes to rows, rows to loops."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from tvm import tirx

from deploy_tvm.codegen import attention, float_ops
from deploy_tvm.codegen.attention import Memory
from deploy_tvm.codegen.emitter import Emitter, Expr, as_index, load
from deploy_tvm.codegen.kernels import Kernels
from deploy_tvm.codegen.rows import (
    SLACK,
    Block,
    NarrowOps,
    Row,
    RowOps,
    buffer_row,
    join,
    number,
    part,
    pwl_fits_int32,
    segments,
    whole_registers,
)
from irnn.arithmetic import fixed_point
from irnn.errors import IrnnError
from irnn.program import Node, Program

# Buffers are padded to whole blocks of every kernel, so that registers are stored whole.
BLOCK = 128


def room(size: int) -> int:
    """Elements to allocate for a row of ``size``."""
    return -(-size // BLOCK) * BLOCK + SLACK


def padded_row(values: np.ndarray) -> np.ndarray:
    """A constant row with its last element repeated in the padding, where it is read but counts for nothing."""
    return np.pad(values, (0, room(values.size) - values.size), mode="edge")


class Constants:
    """The constants that a function takes as parameters, in the order of their first use."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.buffers: dict[str, tirx.Buffer] = {}

    def buffer(self, name: str, make: Callable[[], np.ndarray]) -> tirx.Buffer:
        """The parameter ``name``, made at its first use."""
        if name not in self.buffers:
            array = make()
            self.arrays[name] = array
            stem = "".join(c if c.isalnum() else "_" for c in name)
            self.buffers[name] = tirx.decl_buffer(array.shape, str(array.dtype), stem, data_alignment=64)
        return self.buffers[name]


class Body:
    """Operations of one time step.  ``rows`` maps the names of values to rows; those in ``stored`` are in memory."""

    def __init__(self, program: Program, kernels: Kernels, emitter: Emitter, constants: Constants) -> None:
        self.program, self.kernels, self.emitter, self.constants = program, kernels, emitter, constants
        self.ops: RowOps = kernels.ops(emitter)
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
            if node.op in ("linear", "mad_norm", "layer_norm"):
                self.materialize(node.inputs)
            if node.op == "linear":
                self.rows[node.output] = self.matvec(node)
                self.stored.add(node.output)
            elif node.op == "attention_weights":
                self.materialize(node.inputs[:1])
                self.rows[node.output] = attention.weights(self, node)
                self.stored.add(node.output)
            else:
                self.rows[node.output] = self.row(node)

    def materialize(self, names: Iterable[str]) -> None:
        """Put values into scratch memory."""
        names = [name for name in dict.fromkeys(names) if name not in self.stored]
        places = {}
        for name in names:
            value = self.program.values[name]
            buffer = self.emitter.alloc((room(value.shape[0]),), value.dtype, "row")
            places[name] = lambda index, register, buffer=buffer: self.emitter.store(buffer, register, index)
            places[name].buffer = buffer
        self.store(places)
        for name in names:
            self.bring(name, places[name].buffer)

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
        operand = kernel.allocate(emitter, 1, x.size)
        kernel.fill(emitter, self.ops, operand, 0, x)
        with emitter.loop(kernel.blocks(rows), "block") as block:
            block = self.in_turn(block, kernel.blocks(rows))
            (registers,) = kernel.tile(emitter, operand, [0], packed, block)
            for u, register in enumerate(registers):
                emitter.store(acc, register, block * kernel.block_rows + u * kernel.lanes)

    def in_turn(self, block: Expr, blocks: int) -> Expr:
        """The block to multiply in round ``block``: from the first to the last, or back where ``turn`` is 1.

        A step reads all weights once.  Where they exceed the cache, walking forth and back in turn finds in it what the
        last step read last; walking forth each time finds nothing.
        """
        return self.emitter.bind(block + self.turn * (blocks - 1 - 2 * block), "block")

    def packed(self, node: Node):
        """(kernel, its packed constants as parameters) of a ``linear``."""
        tensors = self.program.tensors
        weight, bias = tensors[node.tensors["weight"]], tensors[node.tensors["bias"]]
        kernel = self.kernels.linear(weight)
        arrays = None

        def make(role: str) -> np.ndarray:
            nonlocal arrays
            arrays = arrays or kernel.pack(weight.data, bias.data)
            return arrays[role]

        stem = node.tensors["weight"] + "|" + node.tensors["bias"]
        buffers = {role: self.constants.buffer(f"{stem}|{role}", lambda r=role: make(r)) for role in ("weight", "bias")}
        return kernel, buffers

    def constant(self, name: str, start: int = 0, stop: int | None = None) -> Row:
        """A program's tensor, or a stretch of it, as a row; equal elements become a number in the code."""
        tensor = self.program.tensors[name].data.reshape(-1)
        dtype = str(tensor.dtype)
        wanted = tensor[start:stop]
        if (wanted == wanted[0]).all():
            return number(wanted[0].item(), dtype)
        return part(
            buffer_row(self.constants.buffer(name, lambda: padded_row(tensor)), tensor.size, dtype),
            start,
            start + wanted.size,
        )

    def factor(self, node: Node, term: int) -> tuple[Row, Row]:
        """Multiplier and shift of one term of a sum."""
        return self.constant(node.tensors[f"multiplier_{term}"]), self.constant(node.tensors[f"shift_{term}"])

    def row(self, node: Node) -> Row:
        """The output of an operation, as a function of its inputs' elements."""
        if node.op == "attention_context":
            return attention.context(self, node)
        x = [self.rows[name] for name in node.inputs]
        a, dtype = node.attributes, self.program.values[node.output].dtype
        match node.op:
            case "slice":
                return part(x[0], a["start"], a["stop"])
            case "concat":
                return join(x)
            case "mad_norm" | "layer_norm":
                return self.norm(node, x[0])
        if self.program.kind == "float":
            return float_ops.row(node.op, x)
        match node.op:
            case "requantize":
                terms = [(v, *self.factor(node, k)) for k, v in enumerate(x)]
                return self.ops.requantize(terms, a["zero_point"], a["low"], a["high"], dtype)
            case "add":
                return fixed_point.add(self.ops, x[0], x[1], a["low"], a["high"], dtype)
            case "multiply":
                return fixed_point.multiply(self.ops, x[0], x[1], a["zero_point_a"], a["zero_point_b"])
            case "pwl":
                return self.pwl(node, x[0], a["shift"], a["low"], a["high"], dtype)
            case "residual":
                pairs = zip(x, a["zero_points"], strict=True)
                terms = [(v, zero, *self.factor(node, k)) for k, (v, zero) in enumerate(pairs)]
                return fixed_point.residual(self.ops, terms, a["zero_point"], a["low"], a["high"], dtype)
        raise IrnnError(f"unknown operation {node.op!r} in a program of kind {self.program.kind!r}")

    def pwl(self, node: Node, x: Row, shift: int, low: int, high: int, dtype: str) -> Row:
        """``fixed_point.pwl`` by the table of ``node``, in 32 bits where they suffice."""
        knots, slopes, intercepts = (
            self.program.tensors[node.tensors[role]].data.astype(np.int64) for role in ("knots", "slopes", "intercepts")
        )
        limits = np.iinfo(x.dtype)
        narrow = pwl_fits_int32(knots, slopes, intercepts, shift, int(limits.min), int(limits.max))
        ops = NarrowOps(self.ops) if narrow else self.ops
        return fixed_point.pwl(ops, x, knots, slopes, intercepts, shift, low, high, dtype)

    def norm(self, node: Node, x: Row) -> Row:
        a, groups = node.attributes, node.attributes["groups"]
        length = x.size // groups
        parts = []
        for g in range(groups):
            start, stop = g * length, (g + 1) * length
            row = part(x, start, stop)
            gamma, beta = (self.constant(node.tensors[role], start, stop) for role in ("gamma", "beta"))
            if self.program.kind == "float":
                parts.append(float_ops.norm(self.ops, node.op, row, length, gamma, beta, a["epsilon"]))
                continue
            multiplier, shift = (self._per_group(node.tensors[role], g, groups) for role in ("multiplier", "shift"))
            function = getattr(fixed_point, node.op)
            dtype = self.program.values[node.output].dtype
            parts.append(function(self.ops, row, length, gamma, beta, multiplier, shift, a["low"], a["high"], dtype))
        # A group's sums are numbers of their own: join() keeps registers from lying across groups.
        return join([Row(length, p.dtype, p.function, p.breaks) for p in parts])

    def _per_group(self, name: str, group: int, groups: int) -> Row:
        data = self.program.tensors[name].data.reshape(-1)
        index = group * (data.size // groups)
        return number(int(data[index]), str(data.dtype))


def copy(emitter: Emitter, size: int, source: tirx.Buffer, at: tuple, target: tirx.Buffer, to: tuple) -> None:
    """Copy ``size`` elements, none beyond."""
    with emitter.loop(size) as i:
        emitter.store(target, load(source, 1, *at, i), *to, i)
