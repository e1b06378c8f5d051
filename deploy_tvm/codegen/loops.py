"""Loops over time: of one sequence, or of several whose products read the weights once for all of them.

A batch of one goes through the body operation by operation.  Of a larger one, up to ``SEQUENCES`` take each step
together: the body is cut behind each of its products' operands.  Every part is done for one sequence after the other;
between the parts the product is made for all of them in tiles, as ``products`` does for all steps of a sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from tvm import tirx

from deploy_tvm.codegen.body import Memory
from deploy_tvm.codegen.constants import BLOCK, copy, room
from deploy_tvm.codegen.emitter import Expr, as_index
from deploy_tvm.codegen.kernels import LinearKernel
from deploy_tvm.codegen.kernels.base import Operand, Place
from deploy_tvm.codegen.sequences import Sequences
from deploy_tvm.codegen.spans import Part
from deploy_tvm.codegen.steps import Loop
from deploy_tvm.codegen.tiles import many
from irnn.program import Node, Scan

# Sequences that take a step together: their operands stay in the first-level cache.
SEQUENCES = 32

Buffers = dict[str, tirx.Buffer]


def loop(s: Sequences, step: Loop) -> None:
    """The loop over time, for each sequence of the batch; reads ``states`` and leaves them in the caller's."""
    parts = _parts(step.scan.body)
    walk = _Walk(s, step.scan)
    if len(parts) == 1:
        walk.one_by_one()
    else:
        alone = s.emitter.bind(s.batch.equal(1), "alone")
        with s.emitter.when(alone):
            walk.one_by_one()
        with s.emitter.apart(tirx.Not(alone)):
            _Together(walk, parts).emit()
    for name in step.scan.states:
        if name not in step.scan.starts:
            s.states[name] = s.interface.after[name]


def _parts(nodes: Sequence[Node]) -> list[list[Node]]:
    """The body cut in front of each product."""
    parts: list[list[Node]] = [[]]
    for node in nodes:
        if node.op == "linear":
            parts.append([])
        parts[-1].append(node)
    return parts


class _Walk:
    """What both ways share: the states in memory, and what a step reads and gives."""

    def __init__(self, s: Sequences, scan: Scan) -> None:
        self.s, self.scan = s, scan
        self.outputs = {outer: s.allocate(outer) for outer in scan.outputs}
        self.held = {name: s.program.values[before] for name, (before, _) in scan.states.items()}
        self.size = {name: value.shape[0] for name, value in self.held.items()}
        self.finals = {name: s.allocate(outer) for outer, name in scan.finals.items()}

    def one_by_one(self) -> None:
        """A sequence after the other, each through all its steps."""
        s, body = self.s, self.s.body
        current, following = (self.states(stem) for stem in ("state", "next"))
        with s.emitter.loop(s.batch, "b") as b:
            self.load(current, (), b)
            self.capture(b)
            end = self.end(b)
            with self.time() as t:
                self.bring(current, (), b, t)
                body.run(self.scan.body)
                names = [inner for _, inner in self.scan.states.values()] + list(self.scan.outputs.values())
                body.store({name: s.storing(self.places(name, following, (), b, t)) for name in names})
                self.advance(current, following, (), end, t)
            self.save(current, (), b)

    def states(self, stem: str, *leading: int) -> Buffers:
        """Memory for the states."""
        alloc = self.s.emitter.alloc
        return {n: alloc((*leading, room(self.size[n])), value.dtype, stem) for n, value in self.held.items()}

    def load(self, current: Buffers, at: tuple[Expr, ...], b: Expr) -> None:
        """The states of sequence number ``b`` from where the loop before left them, or from what they start from."""
        for name, buffer in current.items():
            starts = self.scan.starts
            before = self.s.buffers[starts[name]] if name in starts else self.s.states[name]
            copy(self.s.emitter, self.size[name], before, (b,), buffer, at)

    def save(self, current: Buffers, at: tuple[Expr, ...], b: Expr) -> None:
        """The states of sequence number ``b`` to the caller, and to the values that they are."""
        for name, buffer in current.items():
            own = [] if name in self.scan.starts else [self.s.interface.after[name]]
            for after in [*own, *([self.finals[name]] if name in self.finals else [])]:
                copy(self.s.emitter, self.size[name], buffer, at, after, (b,))

    def advance(self, current: Buffers, following: Buffers, at: tuple[Expr, ...], end: Expr | None, t: Expr) -> None:
        """The states after the step become the present ones; behind a sequence's end they rest."""
        emitter = self.s.emitter
        with nullcontext() if end is None else emitter.when(t < end):
            for name, buffer in current.items():
                copy(emitter, self.size[name], following[name], at, buffer, at)

    @contextmanager
    def time(self) -> Iterator[Expr]:
        """A loop over the steps, which knows the direction in which the weights are walked."""
        s, scan = self.s, self.scan
        (axis,) = {s.program.values[outer].axes[0] for outer in scan.sequences.values()}
        steps = s.axes.size(axis)
        with s.emitter.loop(steps, "step") as counted:
            t = s.emitter.bind(steps - 1 - counted if scan.reverse else counted, "t")
            s.body.turn = s.emitter.bind((s.turn + counted) & as_index(1), "turn")
            yield t

    def end(self, b: Expr) -> Expr | None:
        """How long sequence number ``b`` is; None: as long as all."""
        return None if self.scan.lengths is None else self.s.length(self.scan.lengths, b)

    def capture(self, b: Expr) -> None:
        """Give the body the outer values that a loop over sequence number ``b`` reads as they are."""
        s = self.s
        for name in self.scan.captures:
            if name in s.lengths:
                s.body.lengths[name] = s.length(name, b)
            else:
                value = s.program.values[name]
                s.body.memories[name] = Memory(s.memories[name], b, s.axes.size(value.axes[0]), value.shape[0])

    def bring(self, current: Buffers, at: tuple[Expr, ...], b: Expr, t: Expr) -> None:
        """Tell the body where the step's inputs and states lie."""
        for inner, outer in self.scan.sequences.items():
            self.s.body.bring(inner, self.s.buffers[outer], b, t)
        for name, (inner, _) in self.scan.states.items():
            self.s.body.bring(inner, current[name], *at)

    def places(
        self, name: str, following: Buffers, at: tuple[Expr, ...], b: Expr, t: Expr
    ) -> list[tuple[tirx.Buffer, tuple]]:
        """Where a value of the body is wanted behind the step."""
        states = [(following[state], at) for state, (_, inner) in self.scan.states.items() if inner == name]
        return states + [(self.outputs[outer], (b, t)) for outer, inner in self.scan.outputs.items() if inner == name]


class _Together:
    """Several sequences at once, part by part of the body."""

    def __init__(self, walk: _Walk, parts: list[list[Node]]) -> None:
        self.walk, self.parts, self.s = walk, parts, walk.s
        self.operands = {part[0].output: self._operand(part[0]) for part in parts[1:]}
        self.kept = {name: self._row_of_each(name) for name in self._crossing()}

    def emit(self) -> None:
        s, walk, emitter = self.s, self.walk, self.s.emitter
        current, following = (walk.states(stem, SEQUENCES) for stem in ("state", "next"))
        groups = tirx.floordiv(s.batch + (SEQUENCES - 1), as_index(SEQUENCES))
        with emitter.loop(groups, "group") as group:
            first = emitter.bind(group * SEQUENCES, "first")
            count = emitter.bind(tirx.Min(as_index(SEQUENCES), s.batch - first), "count")
            with emitter.loop(count, "m") as m:
                walk.load(current, (m,), first + m)
            with walk.time() as t:
                for k in range(len(self.parts)):
                    with emitter.loop(count, "m") as m:
                        self._part(k, current, following, m, first + m, t)
                    if k + 1 < len(self.parts):
                        self._multiply(self.parts[k + 1][0], count)
                with emitter.loop(count, "m") as m:
                    walk.advance(current, following, (m,), walk.end(first + m), t)
            with emitter.loop(count, "m") as m:
                walk.save(current, (m,), first + m)

    def _part(self, k: int, current: Buffers, following: Buffers, m: Expr, b: Expr, t: Expr) -> None:
        """One part for one sequence: what it computes for later ones, and the next product's operand."""
        s, walk, body = self.s, self.walk, self.s.body
        body.rows, body.stored = {}, set()
        walk.bring(current, (m,), b, t)
        walk.capture(b)
        for name, buffer in self.kept.items():
            body.bring(name, buffer, m)
        product, nodes = (self.parts[k][:1], self.parts[k][1:]) if k else ([], self.parts[k])
        body.run(nodes)
        made = {node.output for node in nodes}
        wanted = {name: [(buffer, (m,))] for name, buffer in self.kept.items() if name in made}
        # What a step gives may be a product itself, or what it has been given.
        given = {node.output for node in product} if k else body.rows.keys() - made
        for name in [*body.rows]:
            if name in made or name in given:
                wanted[name] = wanted.get(name, []) + walk.places(name, following, (m,), b, t)
        body.store({name: s.storing(places) for name, places in wanted.items() if places})
        if k + 1 < len(self.parts):
            node = self.parts[k + 1][0]
            kernel, operand = self.operands[node.output]
            body.materialize(node.inputs)
            with s.emitter.part(Part.OPERAND):
                kernel.fill(s.emitter, body.ops, operand, m, body.rows[node.inputs[0]])

    def _multiply(self, node: Node, count: Expr) -> None:
        """A product for all sequences: each block of rows is read once."""
        s, body, emitter = self.s, self.s.body, self.s.emitter
        (kernel, operand), (_, packed) = self.operands[node.output], body.packed(node)
        target, blocks = self.kept[node.output], kernel.blocks(s.program.values[node.output].shape[0])
        with (
            emitter.part(Part.PRODUCT),
            many(emitter, kernel, operand, packed, count) as product,
            emitter.loop(blocks, "block") as counted,
        ):
            block = body.in_turn(counted, blocks)
            product.multiply(kernel, block, lambda first, _: Place(target, first, block * kernel.block_rows))

    def _operand(self, node: Node) -> tuple[LinearKernel, Operand]:
        kernel, _ = self.s.body.packed(node)
        return kernel, kernel.allocate(self.s.emitter, SEQUENCES, self.s.program.values[node.inputs[0]].shape[0])

    def _row_of_each(self, name: str) -> tirx.Buffer:
        """Memory for a value of each sequence."""
        value = self.s.program.values[name]
        size = room(value.shape[0])
        for part in self.parts[1:]:
            if part[0].output == name:
                kernel, _ = self.operands[name]
                size = kernel.blocks(value.shape[0]) * kernel.block_rows + room(0) + BLOCK
        return self.s.emitter.alloc((SEQUENCES, size), value.dtype, "each")

    def _crossing(self) -> list[str]:
        """Values that a later part than their own reads; products are made between the parts."""
        made: dict[str, int] = {}
        names = []
        for k, part in enumerate(self.parts):
            for node in part:
                for name in node.inputs:
                    # The operand of the part's product is read at the end of the part before.
                    reads = k - 1 if node is part[0] and k else k
                    if made.get(name, reads) < reads:
                        names.append(name)
                made[node.output] = k
        return list(dict.fromkeys([*(part[0].output for part in self.parts[1:]), *names]))
