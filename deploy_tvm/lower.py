"""Lowers a program, integer or float, to an IRModule: Relax outside, TIR inside.

The Relax function ``run(input [B, T, ...], states [B, ...]...) -> (output [B, T, ...], states...)`` calls one TIR
function a stage:

* a ``linear`` outside of scans, for all time steps at once, with the elementwise operations that follow it (and an
  embedding before it) fused into its loops;
* the operations that stand between;
* a scan, with the loop over time inside.

B and T are dynamic.  Sequences between stages are [B, T, room(size)]: rows padded so that registers are stored whole.
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
from irnn.program import Node, Program, Scan

ENTRY = "run"
# Steps multiplied at a time: their operands stay in the first-level cache while the weights stream by.
CHUNK = 64
ELEMENTWISE = ("requantize", "pwl", "sigmoid", "tanh")


def lower(program: Program, kernels: Kernels) -> tvm.IRModule:
    """The IRModule of ``program`` with the kernels of one target."""
    return _Lowering(program, kernels).module()


def _identifier(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def _flat(row: Expr) -> tuple[Expr, Expr]:
    """Indices of row number ``row`` of B * T in a dense [B, T, ...] buffer, without a division."""
    return as_index(0), row


class _Stage:
    """One TIR function under construction and its call: buffers in the order inputs, constants, outputs."""

    def __init__(self, lowering: _Lowering, kind: str) -> None:
        self.lowering = lowering
        lowering.stages += 1
        self.name = f"{kind}_{lowering.stages}"
        self.batch, self.time = tirx.Var("B", "int64"), tirx.Var("T", "int64")
        self.emitter, self.constants = Emitter(), Constants()
        self.body = Body(lowering.program, lowering.kernels, self.emitter, self.constants)
        self.inputs: dict[str, tirx.Buffer] = {}
        self.arguments: list[relax.Expr] = []
        self.outputs: list[tirx.Buffer] = []
        self.results: list[relax.TensorType] = []

    @property
    def rows(self) -> Expr:
        """Number of time steps of the whole batch."""
        return self.batch * self.time

    def _buffer(self, name: str, padded: bool) -> tirx.Buffer:
        value = self.lowering.program.values[name]
        shape = [room(value.shape[0])] if padded else value.shape
        return tirx.decl_buffer((self.batch, self.time, *shape), value.dtype, _identifier(name), data_alignment=64)

    def source(self, name: str) -> tirx.Buffer:
        """The buffer of a sequence that is read."""
        if name not in self.inputs:
            self.inputs[name] = self._buffer(name, name not in self.lowering.exact)
            self.arguments.append(self.lowering.sequences[name])
        return self.inputs[name]

    def target(self, name: str, *, exact: bool = False) -> tirx.Buffer:
        """The buffer of a sequence that is written; ``exact``: in its own shape, without padding."""
        value = self.lowering.program.values[name]
        shape = value.shape if exact else [room(value.shape[0])]
        self.outputs.append(self._buffer(name, not exact))
        lead = [self.lowering.batch, self.lowering.time]
        self.results.append(relax.TensorType([*lead, *shape], value.dtype))
        return self.outputs[-1]

    def state(self, name: str, current: relax.Expr) -> tuple[tirx.Buffer, tirx.Buffer]:
        """The buffers of a state before and after."""
        state = self.lowering.program.states[name]
        shape = (self.batch, *state.shape)
        before, after = (tirx.decl_buffer(shape, state.dtype, _identifier(name) + s) for s in ("", "_next"))
        self.inputs[f"state {name}"] = before
        self.arguments.append(current)
        self.outputs.append(after)
        self.results.append(relax.TensorType([self.lowering.batch, *state.shape], state.dtype))
        return before, after

    def rows_at(self, nodes: list[Node], row: Expr) -> None:
        """Lower ``nodes`` for time step number ``row``, reading the sequences that they need."""
        made = {node.output for node in nodes}
        for node in nodes:
            for name in node.inputs:
                if name not in made and name not in self.body.rows and node.op != "embedding":
                    self.body.bring(name, self.source(name), *_flat(row))
        for node in nodes:
            if node.op == "embedding":
                self.body.rows[node.output] = self.embedding(node, row)
            else:
                self.body.run([node])

    def embedding(self, node: Node, row: Expr) -> Row:
        """A row of the table, read where it stands."""
        name = node.tensors["table"]
        table = self.lowering.program.tensors[name].data
        padding = ((0, 0), (0, room(table.shape[1]) - table.shape[1]))
        buffer = self.constants.buffer(name, lambda: np.pad(table, padding))
        index = self.emitter.bind(load(self.source(node.inputs[0]), 1, *_flat(row)), "id")
        return buffer_row(buffer, table.shape[1], str(table.dtype), index)

    def close(self) -> list[relax.Expr]:
        """Add the function to the module and call it: its outputs."""
        builder = self.lowering.builder
        buffers = [*self.inputs.values(), *self.constants.buffers.values(), *self.outputs]
        function = prim_func(buffers, self.emitter.finish(), self.name)
        constants = [relax.const(array, str(array.dtype)) for array in self.constants.arrays.values()]
        call = relax.call_tir(
            builder.add_func(function, self.name),
            [*self.arguments, *constants],
            self.results[0] if len(self.results) == 1 else self.results,
        )
        result = builder.emit(call)
        if len(self.results) == 1:
            return [result]
        return [builder.emit(relax.TupleGetItem(result, k)) for k in range(len(self.results))]


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
        self.builder = relax.BlockBuilder()
        self.batch, self.time = tirx.Var("B", "int64"), tirx.Var("T", "int64")
        self.sequences: dict[str, relax.Expr] = {}  # values that lie in memory, for all time steps
        self.exact: set[str] = set()  # those of them that have no padding
        self.lazy: dict[str, Node] = {}  # values to compute in whichever stage needs them
        self.uses: dict[str, int] = {self.output: 1}
        for item in program.nodes:
            for name in item.inputs if isinstance(item, Node) else item.sequences.values():
                self.uses[name] = self.uses.get(name, 0) + 1
        self.stages = 0

    def module(self) -> tvm.IRModule:
        program, builder, value = self.program, self.builder, self.input_value
        given = relax.Var(_identifier(self.input), relax.TensorType([self.batch, self.time, *value.shape], value.dtype))
        states = {
            name: relax.Var(_identifier(name), relax.TensorType([self.batch, *state.shape], state.dtype))
            for name, state in program.states.items()
        }
        with builder.function(ENTRY, [given, *states.values()]):
            with builder.dataflow():
                self.sequences[self.input] = given
                self.exact.add(self.input)
                if value.shape:
                    self.pad_input()
                position = 0
                while position < len(program.nodes):
                    item = program.nodes[position]
                    if isinstance(item, Scan):
                        self.scan(item, states)
                    elif item.op == "linear":
                        position += self.linear(item, program.nodes[position + 1 :])
                    else:
                        self.lazy[item.output] = item
                    position += 1
                if self.output not in self.exact:
                    self.rows_stage([self.output], exact=True)
                result = builder.emit_output(relax.Tuple([self.sequences[self.output], *states.values()]))
            builder.emit_func_output(result)
        return builder.finalize()

    def needed(self, names: list[str]) -> list[Node]:
        """The lazy operations behind ``names``, in order of execution."""
        wanted, found = list(names), set()
        while wanted:
            name = wanted.pop()
            if name in self.lazy and name not in self.sequences and name not in found:
                found.add(name)
                wanted += self.lazy[name].inputs
        return [node for name, node in self.lazy.items() if name in found]

    def pad_input(self) -> None:
        """Features arrive without padding: give them some."""
        stage = _Stage(self, "pad")
        source, target = stage.source(self.input), stage.target(self.input)
        with stage.emitter.loop(stage.rows, "row") as row:
            copy(stage.emitter, self.input_value.shape[0], source, _flat(row), target, _flat(row))
        (self.sequences[self.input],) = stage.close()
        self.exact.remove(self.input)

    def rows_stage(self, names: list[str], *, exact: bool = False) -> None:
        """Put lazy values into memory, for all time steps."""
        stage = _Stage(self, "rows")
        emitter, body, nodes = stage.emitter, stage.body, self.needed(names)
        with emitter.loop(stage.rows, "row") as row:
            for name in names:
                if name in self.sequences:
                    body.bring(name, stage.source(name), *_flat(row))
            stage.rows_at(nodes, row)
            targets = {name: stage.target(name, exact=exact) for name in names}
            if exact:
                body.materialize(names)
                for name, target in targets.items():
                    with emitter.loop(self.program.values[name].shape[0]) as i:
                        emitter.store(target, Block(emitter, i, 1).at(body.rows[name], 0), *_flat(row), i)
            else:
                body.store({n: (lambda i, v, t=t: emitter.store(t, v, *_flat(row), i)) for n, t in targets.items()})
        for name, result in zip(names, stage.close(), strict=True):
            self.sequences[name] = result
        if exact:
            self.exact.update(names)

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
            self.rows_stage([source])
        stage = _Stage(self, "linear")
        emitter, body, nodes = stage.emitter, stage.body, self.needed([source])
        kernel, packed = body.packed(node)
        exact = name == self.output
        target = stage.target(name, exact=exact)
        length, tall = self.program.values[source].shape[0], kernel.tile_vectors
        operand = kernel.allocate(emitter, CHUNK, length)
        with emitter.loop(tirx.floordiv(stage.rows + (CHUNK - 1), as_index(CHUNK)), "chunk") as chunk:
            first = emitter.bind(chunk * CHUNK, "first")
            count = emitter.bind(tirx.Min(as_index(CHUNK), stage.rows - first), "count")
            with emitter.loop(count, "v") as v:
                if source in self.sequences:
                    body.bring(source, stage.source(source), *_flat(first + v))
                stage.rows_at(nodes, first + v)
                kernel.fill(emitter, body.ops, operand, v, body.rows[source])
            with emitter.loop(kernel.blocks(self.program.values[node.output].shape[0]), "block") as block:

                def tile(vectors: list[Expr]) -> None:
                    registers = kernel.tile(emitter, operand, vectors, packed, block)
                    scratch = emitter.alloc((len(vectors), kernel.block_rows + SLACK), kernel.accumulator, "tile")
                    for m, row in enumerate(registers):
                        for u, register in enumerate(row):
                            emitter.store(scratch, register, m, u * kernel.lanes)
                    with emitter.loop(len(vectors), "m") as m:
                        place = (target, _flat(emitter.bind(first + vectors[0] + m, "row")))
                        self.finish_tile(body, [node, *chain], scratch, m, block, place, exact)

                with emitter.when(count >= tall), emitter.loop(tirx.floordiv(count + (tall - 1), as_index(tall))) as j:
                    # The last tile overlaps the one before it rather than being short.
                    v = emitter.bind(tirx.Min(j * tall, count - tall), "v")
                    tile([v + m for m in range(tall)])
                with emitter.when(count < tall), emitter.loop(count, "v") as v:
                    tile([v])
        (self.sequences[name],) = stage.close()
        if exact:
            self.exact.add(name)
        return len(chain)

    def finish_tile(
        self,
        body: Body,
        nodes: list[Node],
        scratch: tirx.Buffer,
        m: Expr,
        block: Expr,
        place: tuple[tirx.Buffer, tuple],
        exact: bool,
    ) -> None:
        """Apply the fused operations to one vector's products with a block of rows and store what comes out."""
        emitter, value = body.emitter, self.program.values[nodes[0].output]
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

    def scan(self, scan: Scan, states: dict[str, relax.Expr]) -> None:
        """The loop over time, for each sequence of the batch; ``states`` is updated."""
        program = self.program
        missing = [name for name in dict.fromkeys(scan.sequences.values()) if name not in self.sequences]
        if missing:
            self.rows_stage(missing)
        stage = _Stage(self, "scan")
        emitter, body = stage.emitter, stage.body
        sequences = {inner: stage.source(outer) for inner, outer in scan.sequences.items()}
        outputs = {outer: stage.target(outer) for outer in scan.outputs}
        ends = {name: stage.state(name, states[name]) for name in scan.states}
        size = {name: program.states[name].shape[0] for name in scan.states}
        current, following = (
            {n: emitter.alloc((room(size[n]),), program.states[n].dtype, stem) for n in scan.states}
            for stem in ("state", "next")
        )
        with emitter.loop(stage.batch, "b") as b:
            for name, buffer in current.items():
                copy(emitter, size[name], ends[name][0], (b,), buffer, ())
            with emitter.loop(stage.time, "step") as step:
                t = emitter.bind(stage.time - 1 - step if scan.reverse else step, "t")
                for inner, buffer in sequences.items():
                    body.bring(inner, buffer, b, t)
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
                copy(emitter, size[name], buffer, (), ends[name][1], (b,))
        results = stage.close()
        self.sequences.update(zip(scan.outputs, results, strict=False))
        states.update(zip(scan.states, results[len(scan.outputs) :], strict=True))


def _storing(emitter: Emitter, places: list[tuple[tirx.Buffer, tuple]]) -> Callable[[Expr, Expr], None]:
    """A function that stores a register at its index in each of ``places``: (buffer, leading indices)."""

    def store(index: Expr, register: Expr) -> None:
        for buffer, leading in places:
            emitter.store(buffer, register, *leading, index)

    return store
