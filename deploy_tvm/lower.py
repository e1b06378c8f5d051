"""Lowers a program, integer or float, to an IRModule: a Relax function around one TIR function.

The Relax function ``run(input [B, T, ...], states [B, ...]...) -> (output [B, T, ...], states...)`` holds the constants
and allocates the results; B and T are dynamic.  ``constants()`` gives the constants, for callers that bring their own
memory for the results and call ``kernel(input, states..., constants..., output, states...)``, which does in turn

* each ``linear`` outside of scans, for all time steps at once, with the elementwise operations that follow it (and an
  embedding before it) fused into its loops;
* each scan, with the loop over time inside;
* whatever stands between, for all time steps.

It is one function because a call costs as much as thousands of multiplications, and a language model is called for each
word.  Sequences between the parts are [B, T, room(size)]: rows padded so that registers are stored whole.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tvm
from tvm import relax, tirx

from deploy_tvm.body import Body, Constants, copy, room
from deploy_tvm.emitter import Emitter, Expr, as_index, load, prim_func
from deploy_tvm.kernels import Kernels
from deploy_tvm.rows import SLACK, Block, Row, buffer_row
from irnn.errors import IrnnError
from irnn.program import Node, Program, Scan, Value

ENTRY = "run"
KERNEL = "kernel"
CONSTANTS = "constants"
# Steps multiplied at a time: their operands stay in the first-level cache while the weights stream by.
CHUNK = 64
ELEMENTWISE = ("requantize", "pwl", "sigmoid", "tanh")


def lower(program: Program, kernels: Kernels) -> tvm.IRModule:
    """The IRModule of ``program`` with the kernels of one target."""
    return _Lowering(program, kernels).module()


def _identifier(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def _foreign(shape: tuple, dtype: str, name: str) -> tirx.Buffer:
    """Memory of the caller: NumPy aligns it to elements, not to registers, and aligned loads would fault."""
    return tirx.decl_buffer(shape, dtype, name, data_alignment=np.dtype(dtype).itemsize)


def _flat(row: Expr) -> tuple[Expr, Expr]:
    """Indices of row number ``row`` of B * T in a dense [B, T, ...] buffer, without a division."""
    return as_index(0), row


class _Lowering:
    def __init__(self, program: Program, kernels: Kernels) -> None:
        self.program, self.kernels = program, kernels
        if len(program.inputs) != 1 or len(program.outputs) != 1:
            raise IrnnError(
                f"only programs with one input and one output can be compiled, "
                f"this one has {list(program.inputs)} and {list(program.outputs)}"
            )
        ((self.input, self.input_value),) = program.inputs.items()
        (self.output,) = program.outputs
        self.emitter, self.constants = Emitter(), Constants()
        self.body = Body(program, kernels, self.emitter, self.constants)
        self.batch, self.time = tirx.Var("B", "int64"), tirx.Var("T", "int64")
        self.rows = self.batch * self.time
        self.sequences: dict[str, tirx.Buffer] = {}  # values that lie in memory, for all time steps
        self.lazy: dict[str, Node] = {}  # values to compute in whichever loop needs them
        self.uses: dict[str, int] = {self.output: 1}
        for item in program.nodes:
            for name in item.inputs if isinstance(item, Node) else item.sequences.values():
                self.uses[name] = self.uses.get(name, 0) + 1

    def module(self) -> tvm.IRModule:
        program = self.program
        value = program.values[self.output]
        given = self.buffer(self.input, self.input_value)
        result = self.buffer(f"{self.output}_out", value)
        before, after = (
            {
                name: _foreign((self.batch, *state.shape), state.dtype, _identifier(name) + stem)
                for name, state in program.states.items()
            }
            for stem in ("", "_next")
        )
        self.result = result
        # Kept between calls, and of no influence on the results: the direction of Body.in_turn.
        turn = self.constants.buffer("turn", lambda: np.zeros(1, np.int64))
        self.turn = self.emitter.bind(load(turn, 1, 0), "turn")
        self.emitter.store(turn, as_index(1) - self.turn, 0)
        self.sequences[self.input] = self.pad(given) if self.input_value.shape else given
        self.states = states = dict(before)
        position = 0
        while position < len(program.nodes):
            item = program.nodes[position]
            if isinstance(item, Scan):
                self.scan(item, states, after)
            elif item.op == "linear":
                position += self.linear(item, program.nodes[position + 1 :])
            else:
                self.lazy[item.output] = item
            position += 1
        if self.sequences.get(self.output) is not result:
            self.store_rows([self.output], exact=True)
        inputs, outputs = [given, *before.values()], [result, *after.values()]
        function = prim_func([*inputs, *self.constants.buffers.values(), *outputs], self.emitter.finish(), KERNEL)
        return self.wrap(function, inputs, outputs)

    def wrap(self, function: tirx.PrimFunc, inputs: list, outputs: list) -> tvm.IRModule:
        """The module of the TIR function and the Relax function that calls it."""
        builder = relax.BlockBuilder()
        batch, time = tirx.Var("B", "int64"), tirx.Var("T", "int64")

        def kind(buffer: tirx.Buffer) -> relax.TensorType:
            sizes = {"B": batch, "T": time}
            shape = [sizes[n.name] if isinstance(n, tirx.Var) else n for n in buffer.shape]
            return relax.TensorType(shape, str(buffer.dtype))

        parameters = [relax.Var(buffer.name, kind(buffer)) for buffer in inputs]
        constants = [relax.const(array, str(array.dtype)) for array in self.constants.arrays.values()]
        with builder.function(CONSTANTS, []):
            builder.emit_func_output(relax.Tuple(constants))
        with builder.function(ENTRY, parameters):
            with builder.dataflow():
                target = builder.add_func(function, KERNEL)
                call = relax.call_tir(target, [*parameters, *constants], [kind(buffer) for buffer in outputs])
                results = builder.emit_output(call)
            builder.emit_func_output(results)
        return builder.finalize()

    def buffer(self, name: str, value: Value) -> tirx.Buffer:
        """A sequence in its own shape, as callers see it."""
        shape = (self.batch, self.time, *value.shape)
        return _foreign(shape, value.dtype, _identifier(name))

    def sequence(self, name: str) -> tirx.Buffer:
        """Memory for a value at all time steps."""
        value = self.program.values[name]
        shape = (self.batch, self.time, room(value.shape[0]))
        buffer = self.sequences[name] = self.emitter.alloc(shape, value.dtype, _identifier(name))
        return buffer

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
        """Give ``body`` the rows of ``names`` at time step number ``row``, from memory or by lazy operations."""
        nodes = self.needed(names)
        for name in [*names, *(i for node in nodes for i in node.inputs if node.op != "embedding")]:
            if name in self.sequences:
                self.body.bring(name, self.sequences[name], *_flat(row))
        for node in nodes:
            if node.op == "embedding":
                self.body.rows[node.output] = self.embedding(node, row)
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

    def pad(self, given: tirx.Buffer) -> tirx.Buffer:
        """Features arrive without padding: give them some."""
        buffer = self.sequence(self.input)
        with self.emitter.loop(self.rows, "row") as row:
            copy(self.emitter, self.input_value.shape[0], given, _flat(row), buffer, _flat(row))
        return buffer

    def store_rows(self, names: list[str], *, exact: bool = False) -> None:
        """Put lazy values into memory, for all time steps; ``exact``: into the result's."""
        emitter, body = self.emitter, self.body
        with emitter.loop(self.rows, "row") as row:
            self.fetch(names, row)
            if exact:
                (name,) = names
                body.materialize(names)
                with emitter.loop(self.program.values[name].shape[0]) as i:
                    emitter.store(self.result, Block(emitter, i, 1).at(body.rows[name], 0), *_flat(row), i)
                return
            targets = {name: self.sequence(name) for name in names}
            body.store({n: _storing(emitter, [(t, _flat(row))]) for n, t in targets.items()})

    def linear(self, node: Node, rest: tuple[Node | Scan, ...]) -> int:
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
        if any(n.op not in ("embedding", "concat", "slice") for n in self.needed([source])):
            self.store_rows([source])
        emitter, body = self.emitter, self.body
        kernel, packed = body.packed(node)
        exact = name == self.output
        target = self.result if exact else self.sequence(name)
        tall = kernel.tile_vectors
        self.product_before(rest[len(chain)] if len(chain) < len(rest) else None)
        operand = kernel.allocate(emitter, CHUNK, self.program.values[source].shape[0])
        with emitter.loop(tirx.floordiv(self.rows + (CHUNK - 1), as_index(CHUNK)), "chunk") as chunk:
            first = emitter.bind(chunk * CHUNK, "first")
            count = emitter.bind(tirx.Min(as_index(CHUNK), self.rows - first), "count")
            with emitter.loop(count, "v") as v:
                self.fetch([source], first + v)
                kernel.fill(emitter, body.ops, operand, v, body.rows[source])
            body.turn = emitter.bind((self.turn + chunk) & as_index(1), "turn")
            blocks = kernel.blocks(self.program.values[node.output].shape[0])
            with emitter.loop(blocks, "block") as counted:
                block = body.in_turn(counted, blocks)

                def tile(vectors: list[Expr]) -> None:
                    registers = kernel.tile(emitter, operand, vectors, packed, block)
                    scratch = emitter.alloc((len(vectors), kernel.block_rows + SLACK), kernel.accumulator, "tile")
                    for m, row in enumerate(registers):
                        for u, register in enumerate(row):
                            emitter.store(scratch, register, m, u * kernel.lanes)
                    with emitter.loop(len(vectors), "m") as m:
                        place = (target, _flat(emitter.bind(first + vectors[0] + m, "row")))
                        self.finish_tile([node, *chain], scratch, m, block, place, exact)

                with emitter.when(count >= tall), emitter.loop(tirx.floordiv(count + (tall - 1), as_index(tall))) as j:
                    # The last tile overlaps the one before it rather than being short.
                    v = emitter.bind(tirx.Min(j * tall, count - tall), "v")
                    tile([v + m for m in range(tall)])
                with emitter.when(count < tall), emitter.loop(count, "v") as v:
                    tile([v])
        self.sequences[name] = target
        return len(chain)

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
        backwards = emitter.bind(tirx.And(self.rows.equal(1), self.turn.equal(1)), "backwards")
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
        place: tuple[tirx.Buffer, tuple],
        exact: bool,
    ) -> None:
        """Apply the fused operations to one vector's products with a block of rows and store what comes out."""
        emitter, body, value = self.emitter, self.body, self.program.values[nodes[0].output]
        height = int(scratch.shape[1]) - SLACK
        base = block * height
        row = Row(value.shape[0], value.dtype, lambda b, start: load(scratch, b.lanes, m, b.index - base + start))
        body.rows[nodes[0].output] = row
        for node in nodes[1:]:
            row = body.rows[node.output] = body.row(node)
        # A row without padding is stored one by one, so that its last block ends where it should.
        lanes = 1 if exact else body.ops.lanes
        extent = tirx.Min(as_index(height), value.shape[0] - base) if exact else height // lanes
        target, leading = place
        with emitter.loop(extent) as i:
            b = Block(emitter, base + i * lanes, lanes)
            emitter.store(target, b.at(row, 0), *leading, b.index)

    def scan(self, scan: Scan, states: dict[str, tirx.Buffer], after: dict[str, tirx.Buffer]) -> None:
        """The loop over time, for each sequence of the batch; reads ``states`` and leaves them in ``after``."""
        program, emitter, body = self.program, self.emitter, self.body
        missing = [name for name in dict.fromkeys(scan.sequences.values()) if name not in self.sequences]
        if missing:
            self.store_rows(missing)
        outputs = {outer: self.sequence(outer) for outer in scan.outputs}
        size = {name: program.states[name].shape[0] for name in scan.states}
        current, following = (
            {n: emitter.alloc((room(size[n]),), program.states[n].dtype, stem) for n in scan.states}
            for stem in ("state", "next")
        )
        with emitter.loop(self.batch, "b") as b:
            for name, buffer in current.items():
                copy(emitter, size[name], states[name], (b,), buffer, ())
            with emitter.loop(self.time, "step") as step:
                t = emitter.bind(self.time - 1 - step if scan.reverse else step, "t")
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
                for name, buffer in current.items():
                    copy(emitter, size[name], following[name], (), buffer, ())
            for name, buffer in current.items():
                copy(emitter, size[name], buffer, (), after[name], (b,))
                states[name] = after[name]


def _storing(emitter: Emitter, places: list[tuple[tirx.Buffer, tuple]]) -> Callable[[Expr, Expr], None]:
    """A function that stores a register at its index in each of ``places``: (buffer, leading indices)."""

    def store(index: Expr, register: Expr) -> None:
        for buffer, leading in places:
            emitter.store(buffer, register, *leading, index)

    return store
