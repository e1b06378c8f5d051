"""The plan of a program: which values lie in memory and what is fused into which loop, before any code.

:func:`plan` decides which ``steps`` there are, ``emit`` writes what was decided, the command ``plan`` prints it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from deploy_tvm.codegen import ops
from deploy_tvm.codegen.steps import (
    Copy,
    Early,
    Give,
    Loop,
    Pick,
    Plan,
    Pool,
    Product,
    Reduce,
    Share,
    Step,
    Store,
    Surround,
)
from irnn.errors import IrnnError
from irnn.program import Node, Program, Scan
from irnn.program.axes import Axis
from irnn.program.ops.shorten import part

# Read row by row outside of loops: they read a table, or know their place in the sequence.
ROW_OPERATIONS = ("embedding", "scaled_embedding", "mask", "repeat")


def plan(program: Program, lanes: int) -> Plan:
    """The plan of ``program``; an operation that has no lowering is refused with the list of those that have one.

    lanes: elements of a register, to know which inputs can be read where they are.
    """
    _need_lowerings(program)
    return _Planner(program, lanes).plan


def read(item: Node | Scan) -> list[str]:
    """The values that a node or a loop reads from outside."""
    if isinstance(item, Node):
        return list(item.inputs)
    lengths = [item.lengths] if item.lengths else []
    return [*item.sequences.values(), *item.captures, *item.starts.values(), *lengths]


class _Planner:
    def __init__(self, program: Program, lanes: int) -> None:
        self.program, self.operations, self.lanes = program, ops.of_kind(program.kind), lanes
        self.plan = Plan()
        self.in_memory: set[str] = set()
        self.lazy: dict[str, Node] = {}
        self.uses: dict[str, int] = {}
        for name in [*program.outputs, *(name for item in program.nodes for name in read(item))]:
            self.uses[name] = self.uses.get(name, 0) + 1
        for name in program.inputs:
            self.take(name)
        nodes = [item for item in program.nodes if not self.shortens(item)]
        while nodes:
            item, *rest = nodes
            fused = 0
            if isinstance(item, Scan):
                self.loop(item)
            elif item.op in PLANNED:
                fused = PLANNED[item.op](self, item, rest)
            else:
                self.lazy[item.output] = item
            nodes = rest[fused:]
        in_place = {step.result for step in self.plan.steps if isinstance(step, Product) and step.in_place}
        for name in program.outputs:
            if name not in in_place:
                self.add(Give(name, self.needed([name])))

    def add(self, step: Step) -> None:
        self.plan.steps.append(step)

    def take(self, name: str) -> None:
        value = self.program.inputs[name]
        memory = value.axes == ("memory",)
        if value.counts is not None:
            self.plan.lengths[name] = name, Axis(value.counts)
            return
        if memory:
            self.plan.memories.append(name)
        else:
            self.in_memory.add(name)
        if not value.shape or (memory and value.shape[0] % self.lanes == 0):
            self.plan.given.append(name)
        else:
            self.add(Copy(name))

    def shortens(self, item: Node | Scan) -> bool:
        """Whether ``item`` is arithmetic on lengths, which two of them are together."""
        if not (isinstance(item, Node) and item.op == "shorten"):
            return False
        given, made = self.plan.lengths[item.inputs[0]]
        self.plan.lengths[item.output] = given, made.after(*part(item))
        return True

    def needed(self, names: Iterable[str]) -> tuple[Node, ...]:
        """The lazy operations behind ``names``, in order of execution."""
        wanted, found = list(names), set()
        while wanted:
            name = wanted.pop()
            if name in self.lazy and name not in self.in_memory and name not in found:
                found.add(name)
                node = self.lazy[name]
                wanted += node.inputs[:1] if node.op == "repeat" else node.inputs
        return tuple(node for name, node in self.lazy.items() if name in found)

    def store(self, names: Sequence[str]) -> None:
        self.add(Store(tuple(names), self.needed(names)))
        self.in_memory.update(names)

    def loop(self, scan: Scan) -> None:
        for name in scan.captures:
            if name not in self.plan.lengths and name not in self.plan.memories:
                raise IrnnError(f"a loop reads {name}, which is no input of the program: it cannot be compiled")
        for names in (scan.sequences, scan.starts):
            missing = [name for name in dict.fromkeys(names.values()) if name not in self.in_memory]
            if missing:
                self.store(missing)
        self.add(Loop(scan))
        self.in_memory.update(scan.outputs, scan.finals)

    def product(self, node: Node, rest: Sequence[Node | Scan]) -> int:
        """A product, and the elementwise operations that alone read it; returns how many these are."""
        finish: list[Node] = []
        for item in rest:
            name = finish[-1].output if finish else node.output
            if not (self.uses.get(name) == 1 and isinstance(item, Node) and item.inputs == (name,)):
                break
            if item.op not in self.operations or not self.operations[item.op].elementwise:
                break
            finish.append(item)
        name = finish[-1].output if finish else node.output
        (source,) = node.inputs
        if not all(self._cheap(n) for n in self.needed([source])):
            self.store([source])
        one_axis = len(self.program.values[node.output].shape) == 1
        in_place = self.uses.get(name) == 1 and name in self.program.outputs and one_axis
        early = self._early(rest[len(finish)]) if len(finish) < len(rest) else None
        self.add(Product(node, self.needed([source]), tuple(finish), in_place, early))
        self.in_memory.add(name)
        return len(finish)

    def _cheap(self, node: Node) -> bool:
        return node.op in ROW_OPERATIONS or self.operations[node.op].cheap

    def _early(self, item: Node | Scan) -> Early | None:
        if not isinstance(item, Scan):
            return None
        held = {inner: name for name, (inner, _) in item.states.items() if name not in item.starts}
        node = next((n for n in item.body if n.op == "linear" and n.inputs[0] in held), None)
        if node is None:
            return None
        (axis,) = {self.program.values[outer].axes[0] for outer in item.sequences.values()}
        return Early(node, held[node.inputs[0]], axis)

    def surround(self, node: Node, rest: Sequence[Node | Scan]) -> int:
        self.add(Surround(node, self.needed(node.inputs)))
        return 0

    def pick(self, node: Node, rest: Sequence[Node | Scan]) -> int:
        self.add(Pick(node, self.needed(node.inputs[:1])))
        self.in_memory.add(node.output)
        return 0

    def pool(self, node: Node, rest: Sequence[Node | Scan]) -> int:
        self.surround(node, rest)
        self.add(Pool(node))
        self.in_memory.add(node.output)
        return 0

    def reduce(self, node: Node, rest: Sequence[Node | Scan], source: int = 0) -> int:
        self.add(Reduce(node, self.needed([node.inputs[source]])))
        self.in_memory.add(node.output)
        return 0

    def weigh(self, node: Node, rest: Sequence[Node | Scan]) -> int:
        """Scores are read twice, so they lie in memory."""
        if node.inputs[0] not in self.in_memory:
            self.store(node.inputs[:1])
        return self.reduce(node, rest, 1)

    def repeat(self, node: Node, rest: Sequence[Node | Scan]) -> int:
        """A value that is read at every step is computed once."""
        if node.inputs[0] not in self.in_memory:
            self.store(node.inputs[:1])
        self.lazy[node.output] = node
        return 0

    def once(self, node: Node, rest: Sequence[Node | Scan]) -> int:
        """What is costly is put into memory, however many read it."""
        self.lazy[node.output] = node
        self.store([node.output])
        return 0

    def flatten(self, node: Node, rest: Sequence[Node | Scan]) -> int:
        (source,) = node.inputs
        if source in self.in_memory:
            self.add(Share(node.output, source))
            self.in_memory.add(node.output)
        else:
            self.lazy[node.output] = node
        return 0


# Operations on whole sequences, by name; what is in no table is lazy.
PLANNED: dict[str, Callable[[_Planner, Node, Sequence[Node | Scan]], int]] = {
    "linear": _Planner.product,
    "patches": _Planner.surround,
    "subsample": _Planner.pick,
    "last": _Planner.pick,
    "step": _Planner.pick,
    "max_pool": _Planner.pool,
    "mean_pool": _Planner.pool,
    "time_mean": _Planner.reduce,
    "time_max": _Planner.reduce,
    "softmax_mean": _Planner.weigh,
    "repeat": _Planner.repeat,
    "flatten": _Planner.flatten,
    "top": _Planner.once,
}


def lowered(kind: str) -> list[str]:
    """The operations that can be compiled in programs of ``kind``."""
    return sorted({*ops.of_kind(kind), *PLANNED, *ROW_OPERATIONS, "shorten"})


def _need_lowerings(program: Program) -> None:
    known = lowered(program.kind)
    in_loops = ops.of_kind(program.kind)
    for node in program.walk():
        if node.op not in known:
            raise IrnnError(
                f"the operation {node.op!r} ({node.output}) of {program.kind} programs cannot be compiled; known are "
                f"{', '.join(known)}"
            )
    for node in (node for item in program.nodes if isinstance(item, Scan) for node in item.body):
        if node.op not in in_loops:
            raise IrnnError(
                f"the operation {node.op!r} ({node.output}) cannot stand in a loop; there can {', '.join(in_loops)}"
            )
    for node in (node for node in program.walk() if in_loops.get(node.op) is ops.GENERIC):
        shapes = {program.values[name].shape for name in (*node.inputs, node.output)}
        if len(shapes) > 1:
            raise IrnnError(
                f"the operation {node.op!r} ({node.output}) has no emitter of its own; the generic one goes element "
                f"by element and cannot make {program.values[node.output].shape} of values of other shapes"
            )
    for name in program.outputs:
        if len(program.values[name].shape) > 1:
            raise IrnnError(f"the output {name} has the shape {program.values[name].shape}: flatten it first")
