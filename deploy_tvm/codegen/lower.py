"""Lowers a program, integer or float, to an IRModule: a Relax function around one TIR function.

The Relax function ``run(inputs..., states [B, ...]...) -> (outputs..., states...)`` holds the constants and allocates
the results; the batch B and the axes of values (time, memory) are dynamic.  ``constants()`` gives the constants, for
callers that bring their own memory for the results and call
``kernel(inputs..., states..., constants..., outputs..., states...)``, which does in turn

* each ``linear`` outside of scans, for all time steps at once, with the elementwise operations that follow it (and an
  embedding or a convolution's neighbourhoods before it) fused into its loops;
* each scan, with the loop over time inside;
* whatever stands between, for all time steps.

It is one function because a call costs as much as thousands of multiplications, and a language model is called for each
word.  Sequences between the parts are [B, steps, room(size)]: rows padded so that registers are stored whole.  The
bands of a convolution lie in one row, without gaps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import tvm
from tvm import tirx

from deploy_tvm.codegen.attention import Memory
from deploy_tvm.codegen.body import Body, Constants, copy, room
from deploy_tvm.codegen.convolution import Border, Neighbourhoods
from deploy_tvm.codegen.emitter import Emitter, Expr, as_index, cast, constant, lanes_of, load, prim_func
from deploy_tvm.codegen.interface import CONSTANTS, ENTRY, KERNEL, Interface, identifier
from deploy_tvm.codegen.kernels import Kernels
from deploy_tvm.codegen.rows import SLACK, Block, Row, buffer_row, combine
from irnn.errors import IrnnError
from irnn.program import Node, Program, Scan

__all__ = ["CONSTANTS", "ENTRY", "KERNEL", "lower"]

# Steps multiplied at a time: their operands stay in the first-level cache while the weights stream by.
CHUNK = 64
ELEMENTWISE = ("requantize", "pwl", "relu", "sigmoid", "tanh")
# What is cheap enough to be done again by each product that reads it.
CHEAP = ("embedding", "concat", "slice", "mask")


def lower(program: Program, kernels: Kernels) -> tvm.IRModule:
    """The IRModule of ``program`` with the kernels of one target."""
    return _Lowering(program, kernels).module()


def _flat(row: Expr) -> tuple[Expr, Expr]:
    """Indices of row number ``row`` of B * steps in a dense [B, steps, ...] buffer, without a division."""
    return as_index(0), row


class _Lowering:
    def __init__(self, program: Program, kernels: Kernels) -> None:
        self.program, self.kernels = program, kernels
        self.interface = Interface(program)
        self.axes, self.batch = self.interface.axes, self.interface.axes.batch
        self.emitter, self.constants = Emitter(), Constants()
        self.body = Body(program, kernels, self.emitter, self.constants)
        self.sequences: dict[str, tirx.Buffer] = {}  # values that lie in memory, for all time steps
        self.lazy: dict[str, Node] = {}  # values to compute in whichever loop needs them
        self.lengths: dict[str, tuple[tirx.Buffer, int]] = {}  # an input, and what it is divided by
        self.memories: dict[str, tirx.Buffer] = {}
        self.neighbourhoods: dict[str, Neighbourhoods] = {}
        self.states = dict(self.interface.before)
        self.uses: dict[str, int] = {}
        self.lanes = self.body.ops.lanes
        for name in [*program.outputs, *(name for item in program.nodes for name in _read(item))]:
            self.uses[name] = self.uses.get(name, 0) + 1

    def module(self) -> tvm.IRModule:
        # Kept between calls, and of no influence on the results: the direction of Body.in_turn.
        turn = self.constants.buffer("turn", lambda: np.zeros(1, np.int64))
        self.turn = self.emitter.bind(load(turn, 1, 0), "turn")
        self.emitter.store(turn, as_index(1) - self.turn, 0)
        for name in self.program.inputs:
            self.take(name)
        nodes = [item for item in self.program.nodes if not self.shortens(item)]
        position = 0
        while position < len(nodes):
            item = nodes[position]
            if isinstance(item, Scan):
                self.scan(item)
            elif item.op == "linear":
                position += self.linear(item, nodes[position + 1 :])
            elif item.op == "patches":
                self.surround(item)
            elif item.op == "subsample":
                self.subsample(item)
            elif item.op == "flatten" and item.inputs[0] in self.sequences:
                self.sequences[item.output] = self.sequences[item.inputs[0]]
            else:
                self.lazy[item.output] = item
            position += 1
        for name in self.program.outputs:
            self.give(name)
        parameters = self.interface.parameters(list(self.constants.buffers.values()))
        function = prim_func(parameters, self.emitter.finish(), KERNEL)
        return self.interface.wrap(function, list(self.constants.arrays.values()))

    def take(self, name: str) -> None:
        """Make an input readable: rows whose registers would reach beyond the caller's memory are copied."""
        value, given = self.program.inputs[name], self.interface.inputs[name]
        if value.counts is not None:
            self.lengths[name] = given, 1
        elif not value.shape:
            self.sequences[name] = given
        elif value.axes == ("memory",) and value.shape[0] % self.lanes == 0:
            self.memories[name] = given
        else:
            buffer = self.sequence(name)
            with self.emitter.loop(self.rows(value.axes[0]), "row") as row:
                copy(self.emitter, value.shape[0], given, _flat(row), buffer, _flat(row))
            if value.axes == ("memory",):
                self.memories[name] = self.sequences.pop(name)

    def shortens(self, item: Node | Scan) -> bool:
        """Whether ``item`` is arithmetic on lengths, which are computed where they are needed."""
        if not (isinstance(item, Node) and item.op == "shorten"):
            return False
        given, factor = self.lengths[item.inputs[0]]
        self.lengths[item.output] = given, factor * item.attributes["factor"]
        return True

    def length(self, name: str, batch: Expr) -> Expr:
        """How long sequence number ``batch`` is; the ceiling of a ceiling is that of the product."""
        given, factor = self.lengths[name]
        length = cast(load(given, 1, batch), "int64")
        return self.emitter.bind(tirx.truncdiv(length + (factor - 1), as_index(factor)), "length")

    def rows(self, axis: str) -> Expr:
        """Rows of a sequence along ``axis``, those of the whole batch."""
        return self.batch * self.axes.size(axis)

    def position(self, row: Expr, axis: str) -> tuple[Expr, Expr]:
        """(sequence of the batch, step) of a row."""
        steps = self.axes.size(axis)
        batch = self.emitter.bind(tirx.truncdiv(row, steps), "b")
        return batch, self.emitter.bind(row - batch * steps, "t")

    def sequence(self, name: str) -> tirx.Buffer:
        """Memory for a value at all time steps; a value along a second axis has a row of its size."""
        value = self.program.values[name]
        first, *second = value.axes
        size = self.axes.size(second[0]) + SLACK if second else room(math.prod(value.shape))
        shape = (self.batch, self.axes.size(first), size)
        buffer = self.sequences[name] = self.emitter.alloc(shape, value.dtype, identifier(name))
        return buffer

    def bring(self, name: str, buffer: tirx.Buffer, *leading: Expr) -> None:
        """Tell ``body`` where a row of a sequence lies."""
        _, *second = self.program.values[name].axes
        self.body.bring(name, buffer, *leading, size=self.axes.size(second[0]) if second else None)

    def needed(self, names: list[str]) -> list[Node]:
        """The lazy operations behind ``names``, in order of execution."""
        wanted, found = list(names), set()
        while wanted:
            name = wanted.pop()
            if name in self.lazy and name not in self.sequences and name not in found:
                found.add(name)
                wanted += self.lazy[name].inputs
        return [node for name, node in self.lazy.items() if name in found]

    def fetch(self, names: list[str], row: Expr) -> None:
        """Give ``body`` row number ``row`` of values along one axis, from memory or by lazy operations."""
        nodes = self.needed(names)
        for name in [*names, *(i for node in nodes for i in node.inputs if node.op != "embedding")]:
            if name in self.sequences:
                self.bring(name, self.sequences[name], *_flat(row))
        for node in nodes:
            if node.op == "embedding":
                self.body.rows[node.output] = self.embedding(node, row)
                self.body.stored.discard(node.output)
            elif node.op == "mask":
                self.body.rows[node.output] = self.masked(node, row)
                self.body.stored.discard(node.output)
            else:
                self.body.run([node])

    def embedding(self, node: Node, row: Expr) -> Row:
        """A row of the table, read where it stands."""
        name = node.tensors["table"]
        table = self.program.tensors[name].data
        # Rows follow each other without padding: a register that reaches past its row reads the next one's beginning.
        spare = -(-SLACK // table.shape[1])
        buffer = self.constants.buffer(name, lambda: np.pad(table, ((0, spare), (0, 0))))
        index = self.emitter.bind(load(self.sequences[node.inputs[0]], 1, *_flat(row)), "id")
        return buffer_row(buffer, table.shape[1], str(table.dtype), index)

    def masked(self, node: Node, row: Expr) -> Row:
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

    def store_rows(self, names: list[str]) -> None:
        """Put lazy values along one axis into memory, for all time steps."""
        emitter, body = self.emitter, self.body
        with emitter.loop(self.rows(self.program.values[names[0]].axes[0]), "row") as row:
            self.fetch(names, row)
            targets = {name: self.sequence(name) for name in names}
            body.store({n: _storing(emitter, [(t, _flat(row))]) for n, t in targets.items()})

    def give(self, name: str) -> None:
        """Put an output into the caller's memory, unless it is there."""
        emitter, body, value, result = self.emitter, self.body, self.program.values[name], self.interface.outputs[name]
        if name in self.lengths:
            with emitter.loop(self.batch, "b") as b:
                emitter.store(result, cast(self.length(name, b), value.dtype), b)
        elif self.sequences.get(name) is not result:
            with emitter.loop(self.rows(value.axes[0]), "row") as row:
                self.fetch([name], row)
                body.materialize([name])
                with emitter.loop(body.rows[name].size) as i:
                    emitter.store(result, Block(emitter, i, 1).at(body.rows[name], 0), *_flat(row), i)

    def surround(self, node: Node) -> None:
        """Put the input of a convolution into memory, with a border around it."""
        emitter, (source,) = self.emitter, node.inputs
        value, border = self.program.values[source], Border.of(node)
        steps, elements = self.axes.size(value.axes[0]), math.prod(value.shape)
        shape = (self.batch, steps + 2 * border.steps, room(elements + 2 * border.elements))
        buffer = emitter.alloc(shape, value.dtype, identifier(node.output))
        with emitter.loop(self.batch, "b") as b, emitter.loop(border.steps, "t") as t:
            for step in (t, t + steps + border.steps):
                border.put(emitter, self.lanes, buffer, (b, step, as_index(0)), elements + 2 * border.elements)
        with emitter.loop(self.rows(value.axes[0]), "row") as row:
            self.fetch([source], row)
            b, t = self.position(row, value.axes[0])
            leading = (b, t + border.steps)
            # In ascending order: what reaches too far is overwritten.
            border.put(emitter, self.lanes, buffer, (*leading, as_index(0)), border.elements)

            def store(index: Expr, register: Expr) -> None:
                emitter.store(buffer, register, *leading, index + border.elements)

            self.body.store({source: store})
            end = as_index(border.elements + elements)
            border.put(emitter, self.lanes, buffer, (*leading, end), border.elements)
        self.neighbourhoods[node.output] = Neighbourhoods(node, buffer)

    def subsample(self, node: Node) -> None:
        """Copy every so many-th row."""
        emitter, (source,) = self.emitter, node.inputs
        (before,), (after,) = (self.program.values[name].axes for name in (source, node.output))
        target = self.sequence(node.output)
        with emitter.loop(self.rows(after), "row") as row:
            b, t = self.position(row, after)
            self.fetch([source], emitter.bind(b * self.axes.size(before) + t * node.attributes["factor"], "from"))
            self.body.store({source: _storing(emitter, [(target, _flat(row))])})

    def linear(self, node: Node, rest: list[Node | Scan]) -> int:
        """A product for all time steps; returns how many of the following nodes were fused into it."""
        chain: list[Node] = []
        for item in rest:
            name = chain[-1].output if chain else node.output
            if not (self.uses.get(name) == 1 and isinstance(item, Node) and item.inputs == (name,)):
                break
            if item.op not in ELEMENTWISE:
                break
            chain.append(item)
        name = chain[-1].output if chain else node.output
        (source,) = node.inputs
        if any(n.op not in CHEAP for n in self.needed([source])):
            self.store_rows([source])
        emitter, body, value = self.emitter, self.body, self.program.values[node.output]
        bands, axis = math.prod(value.shape[:-1]), value.axes[0]
        vectors = self.rows(axis) * bands
        kernel, packed = body.packed(node)
        exact = self.uses.get(name) == 1 and name in self.program.outputs and len(value.shape) == 1
        target = self.interface.outputs[name] if exact else self.sequence(name)
        tall = kernel.tile_vectors
        self.product_before(rest[len(chain)] if len(chain) < len(rest) else None)
        operand = kernel.allocate(emitter, CHUNK, self.program.values[source].shape[-1])
        with emitter.loop(tirx.floordiv(vectors + (CHUNK - 1), as_index(CHUNK)), "chunk") as chunk:
            first = emitter.bind(chunk * CHUNK, "first")
            count = emitter.bind(tirx.Min(as_index(CHUNK), vectors - first), "count")
            with emitter.loop(count, "v") as v:
                kernel.fill(emitter, body.ops, operand, v, self.vector(source, first + v, bands))
            body.turn = emitter.bind((self.turn + chunk) & as_index(1), "turn")
            blocks = kernel.blocks(value.shape[-1])
            with emitter.loop(blocks, "block") as counted:
                block = body.in_turn(counted, blocks)

                def tile(vectors: list[Expr]) -> None:
                    registers = kernel.tile(emitter, operand, vectors, packed, block)
                    scratch = emitter.alloc((len(vectors), kernel.block_rows + SLACK), kernel.accumulator, "tile")
                    for m, row in enumerate(registers):
                        for u, register in enumerate(row):
                            emitter.store(scratch, register, m, u * kernel.lanes)
                    with emitter.loop(len(vectors), "m") as m:
                        place = self.place(first + vectors[0] + m, bands, value.shape[-1])
                        self.finish_tile([node, *chain], scratch, m, block, target, place, exact)

                with emitter.when(count >= tall), emitter.loop(tirx.floordiv(count + (tall - 1), as_index(tall))) as j:
                    # The last tile overlaps the one before it rather than being short.
                    v = emitter.bind(tirx.Min(j * tall, count - tall), "v")
                    tile([v + m for m in range(tall)])
                with emitter.when(count < tall), emitter.loop(count, "v") as v:
                    tile([v])
        self.sequences[name] = target
        return len(chain)

    def vector(self, source: str, number: Expr, bands: int) -> Row:
        """What a product reads: a row of a sequence, or one band's neighbourhood at one step."""
        if source not in self.neighbourhoods:
            self.fetch([source], number)
            return self.body.rows[source]
        row = self.emitter.bind(tirx.truncdiv(number, as_index(bands)), "row")
        batch, step = self.position(row, self.program.values[source].axes[0])
        return self.neighbourhoods[source].row(batch, step, self.emitter.bind(number - row * bands, "band"))

    def place(self, number: Expr, bands: int, filters: int) -> tuple[Expr, Expr, Expr]:
        """Where the product with vector ``number`` begins: the bands of one step follow each other."""
        number = self.emitter.bind(number, "row")
        if bands == 1:
            return *_flat(number), as_index(0)
        row = self.emitter.bind(tirx.truncdiv(number, as_index(bands)), "row")
        return *_flat(row), self.emitter.bind((number - row * bands) * filters, "start")

    def product_before(self, item: Node | Scan | None) -> None:
        """In a single step whose turn is backwards, make the following scan's product with the state first.

        The step before ended with that product's weights: it finds the most of them in the cache, and then of the
        input-side weights.  For 3.4 MB of weights and 2 MB of cache this saves a third of the step.
        """
        if not isinstance(item, Scan):
            return
        held = {inner: name for name, (inner, _) in item.states.items()}
        node = next((n for n in item.body if n.op == "linear" and n.inputs[0] in held), None)
        if node is None:
            return
        emitter, body, program = self.emitter, self.body, self.program
        state = program.states[held[node.inputs[0]]]
        current = emitter.alloc((room(state.shape[0]),), state.dtype, "state")
        acc = body.accumulators(node)
        (axis,) = {program.values[outer].axes[0] for outer in item.sequences.values()}
        backwards = emitter.bind(tirx.And(self.rows(axis).equal(1), self.turn.equal(1)), "backwards")
        with emitter.when(backwards):
            copy(emitter, state.shape[0], self.states[held[node.inputs[0]]], (as_index(0),), current, ())
            body.bring(node.inputs[0], current)
            body.turn = self.turn
            body.multiply(node, acc)
        body.early[node.output] = (acc, backwards)

    def finish_tile(
        self,
        nodes: list[Node],
        scratch: tirx.Buffer,
        m: Expr,
        block: Expr,
        target: tirx.Buffer,
        place: tuple[Expr, Expr, Expr],
        exact: bool,
    ) -> None:
        """Apply the fused operations to one vector's products with a block of rows and store what comes out.

        exact: nothing is stored behind the last element.
        """
        emitter, body, value = self.emitter, self.body, self.program.values[nodes[0].output]
        height, size = int(scratch.shape[1]) - SLACK, value.shape[-1]
        base = block * height
        row = Row(size, value.dtype, lambda b, start: load(scratch, b.lanes, m, b.index - base + start))
        body.rows[nodes[0].output] = row
        for node in nodes[1:]:
            row = body.rows[node.output] = body.row(node)
        *leading, start = place

        def store(lanes: int, extent: Expr, first: Expr) -> None:
            with emitter.loop(extent) as i:
                b = Block(emitter, first + i * lanes, lanes)
                emitter.store(target, b.at(row, 0), *leading, b.index + start)

        lanes = body.ops.lanes
        if exact:
            store(1, tirx.Min(as_index(height), size - base), base)
        elif len(value.shape) == 1:
            store(lanes, height // lanes, base)
        elif height >= size:
            # What reaches into the next band is overwritten when that one's turn comes.
            store(lanes, -(-size // lanes), base)
        else:
            # Another band lies behind this one, and was there before this block: it ends where the band does.
            store(lanes, tirx.Min(as_index(height // lanes), tirx.floordiv(size - base, as_index(lanes))), base)
            if size % lanes:
                with emitter.when(size - base <= height):
                    store(1, size % lanes, as_index(size - size % lanes))

    def scan(self, scan: Scan) -> None:
        """The loop over time, for each sequence of the batch; reads ``states`` and leaves them in the caller's."""
        program, emitter, body, states, after = (
            self.program, self.emitter, self.body, self.states, self.interface.after
        )  # fmt: skip
        missing = [name for name in dict.fromkeys(scan.sequences.values()) if name not in self.sequences]
        if missing:
            self.store_rows(missing)
        outputs = {outer: self.sequence(outer) for outer in scan.outputs}
        (axis,) = {program.values[outer].axes[0] for outer in scan.sequences.values()}
        steps = self.axes.size(axis)
        size = {name: program.states[name].shape[0] for name in scan.states}
        current, following = (
            {n: emitter.alloc((room(size[n]),), program.states[n].dtype, stem) for n in scan.states}
            for stem in ("state", "next")
        )
        with emitter.loop(self.batch, "b") as b:
            for name, buffer in current.items():
                copy(emitter, size[name], states[name], (b,), buffer, ())
            self.capture(scan, b)
            end = None if scan.lengths is None else self.length(scan.lengths, b)
            with emitter.loop(steps, "step") as step:
                t = emitter.bind(steps - 1 - step if scan.reverse else step, "t")
                body.turn = emitter.bind((self.turn + step) & as_index(1), "turn")
                for inner, outer in scan.sequences.items():
                    body.bring(inner, self.sequences[outer], b, t)
                for name, (inner, _) in scan.states.items():
                    body.bring(inner, current[name])
                body.run(scan.body)
                places: dict[str, list[tuple[tirx.Buffer, tuple]]] = {}
                for name, (_, inner) in scan.states.items():
                    places.setdefault(inner, []).append((following[name], ()))
                for outer, inner in scan.outputs.items():
                    places.setdefault(inner, []).append((outputs[outer], (b, t)))
                body.store({inner: _storing(emitter, where) for inner, where in places.items()})
                # Behind a sequence's end its states rest.
                with nullcontext() if end is None else emitter.when(t < end):
                    for name, buffer in current.items():
                        copy(emitter, size[name], following[name], (), buffer, ())
            for name, buffer in current.items():
                copy(emitter, size[name], buffer, (), after[name], (b,))
                states[name] = after[name]

    def capture(self, scan: Scan, batch: Expr) -> None:
        """Give ``body`` the outer values that a loop over sequence number ``batch`` reads as they are."""
        for name in scan.captures:
            if name in self.lengths:
                self.body.lengths[name] = self.length(name, batch)
            elif name in self.memories:
                value = self.program.values[name]
                places = self.axes.size(value.axes[0])
                self.body.memories[name] = Memory(self.memories[name], batch, places, value.shape[0])
            else:
                raise IrnnError(f"a loop reads {name}, which is no input of the program: it cannot be compiled")


def _read(item: Node | Scan) -> list[str]:
    """The values that a node or a loop reads from outside."""
    if isinstance(item, Node):
        return list(item.inputs)
    return [*item.sequences.values(), *item.captures, *([item.lengths] if item.lengths else [])]


def _storing(emitter: Emitter, places: list[tuple[tirx.Buffer, tuple]]) -> Callable[[Expr, Expr], None]:
    """A function that stores a register at its index in each of ``places``: (buffer, leading indices)."""

    def store(index: Expr, register: Expr) -> None:
        for buffer, leading in places:
            emitter.store(buffer, register, *leading, index)

    return store
