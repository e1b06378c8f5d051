"""A program as the statements of one C function: its schedule, walked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from irnn.errors import IrnnError
from irnn.export.axes import Size, Steps
from irnn.export.c99.arrays import Array, Element, Index, Scalar, Stored, plus
from irnn.export.c99.block import Block
from irnn.export.c99.constants import Constants
from irnn.export.c99.memory import Place
from irnn.export.c99.names import Names
from irnn.export.c99.ops import COps
from irnn.export.c99.pruning import reads, without_unread
from irnn.export.c99.schedule import COUNTING, WINDOWS, Loop, Schedule, schedule
from irnn.export.c99.writer import Writer
from irnn.program import Node, Program, Scan, Value
from irnn.program.axes import Axis
from irnn.program.ops import OPS

# What these make of one element of an operand, they make of it alone: the operand needs no memory.
FUSING = frozenset({
    "requantize", "add", "multiply", "pwl", "residual", "subtract", "affine", "mod_relu", "complement",
    "minimum", "slice", "concat",
})  # fmt: skip


@dataclass(frozen=True)
class Argument:
    """A pointer (or, for lengths, a number) that the caller gives."""

    name: str
    value_name: str
    value: Value

    @property
    def is_number(self) -> bool:
        """Lengths of the batch of one."""
        return not self.value.axes and not self.value.shape


class Lowering:
    """``lines`` are the function's statements; what they use is in the other attributes."""

    def __init__(self, program: Program, limits: Mapping[str, int], names: Names) -> None:
        self.program = program = without_unread(program)
        self.values = program.inputs | program.values
        self.work = Writer(names, limits)
        self.constants = Constants(program.tensors, names)
        self.ops = COps(self.work, self.constants)
        self.plan: Schedule = schedule(program)
        self.inputs = [Argument(names.like(name), name, value) for name, value in program.inputs.items()]
        self.outputs = [Argument(names.like(name), name, self.values[name]) for name in program.outputs]
        self.states = {name: names.like(f"state_{name}") for name in program.states}
        self.members = self._members()
        self._roles = {
            node.output: OPS[node.op].constants(
                self.ops, node, self.values, {r: program.tensors[n] for r, n in node.tensors.items()}, None
            )
            for node in program.walk()
        }
        self._kept = self._kept_values()
        self._alone = self._read_once()
        self._whole: dict[str, Place] = {}
        self._once: dict[str, Array] = {}
        self._intervals: list[tuple[int, int]] = []
        self._started: dict[str, Stored] = {}
        self._given()
        self._run()
        self._extend()

    def _members(self) -> dict[str, str]:
        names = Names()
        return {name: names.like(name) for name in self.program.states}

    # where things are

    def _shape(self, name: str, axes: int = 0) -> tuple[Size, ...]:
        """[batch of one, *axes from ``axes`` on, *shape]."""
        value = self.values[name]
        return (1, *(Steps.along(axis) for axis in value.axes[axes:]), *value.shape)

    def _given(self) -> None:
        """Inputs and outputs lie with the caller."""
        for argument in self.inputs:
            if argument.is_number:
                self._once[argument.value_name] = Scalar(self.work, argument.name, (1,), argument.value.dtype)
            else:
                self._caller(argument)
        for argument in self.outputs:
            if argument.value_name not in self.program.inputs:
                self._caller(argument)

    def _caller(self, argument: Argument) -> None:
        place = Place(argument.name, argument.value.dtype, 0, fixed=argument.name)
        name = argument.value_name
        if self._walks(name):
            self._whole[name] = place
        else:
            self._once[name] = Stored.contiguous(self.work, place, self._shape(name))

    def _walks(self, name: str) -> bool:
        axes = self.values[name].axes
        return bool(axes) and Axis.parse(axes[0]).root == "time"

    def _kept_values(self) -> set[str]:
        """Values of one loop that are read outside of it."""
        kept: set[str] = set()
        made = self.plan.made

        def read(names: list[str], place: tuple[str, int]) -> None:
            kept.update(name for name in names if made.get(name, place) != place and made[name][0] == "loop")

        for k, loop in enumerate(self.plan.loops):
            for _, item in loop.items:
                read(list(item.sequences.values() if isinstance(item, Scan) else reads(item)), ("loop", k))
        for k, nodes in enumerate(self.plan.once):
            for node in nodes:
                read(list(reads(node)), ("once", k))
        return kept

    def _read_once(self) -> set[str]:
        """Values that one operation of the same loop and body reads, element by element: they need no memory."""
        readers: dict[str, set[str]] = {}
        scope: dict[str, tuple[str, int]] = {}
        kinds: dict[str, str] = {}

        def note(node: Node, where: tuple[str, int]) -> None:
            scope[node.output], kinds[node.output] = where, node.op
            for name in reads(node):
                readers.setdefault(name, set()).add(node.output)

        others: Counter[str] = Counter(self.program.outputs)
        for k, loop in enumerate(self.plan.loops):
            others.update(node.inputs[0] for node in loop.ends)
            for order, item in loop.items:
                if isinstance(item, Node):
                    note(item, ("loop", k))
                    continue
                for node in item.body:
                    note(node, (f"scan {order}", k))
                others.update(item.sequences.values())
                others.update(item.outputs.values())
                others.update(after for _, after in item.states.values())
        return {
            name
            for name, names in readers.items()
            if name in scope and len(names) == 1 and not others[name] and name not in self._kept
            for reader in names
            if scope.get(reader) == scope[name] and kinds[reader] in FUSING
        }

    def _step(self, name: str, t: Index) -> Stored:
        """One step of a sequence that is kept as a whole, or that the caller holds."""
        if name not in self._whole:
            shape = self._shape(name)
            self._whole[name] = self.work.place(self.values[name].dtype, shape, f"the sequence {name}").place
            self._whole[name].whole = True
        inner = self._shape(name, 1)
        size = " * ".join(str(self.work.bound(part)) for part in inner if part != 1) or "1"
        offset = f"(size_t){t}" + ("" if size == "1" else f" * {size}")
        return Stored.contiguous(self.work, self._whole[name], inner, offset)

    # the walk

    def _run(self) -> None:
        for k, nodes in enumerate(self.plan.once):
            for node in nodes:
                self._single(node)
            if k < len(self.plan.loops):
                self._loop(self.plan.loops[k], k)
        for argument in self.outputs:  # an output that is an input
            if argument.value_name in self.program.inputs:
                self._copy(argument)

    def _copy(self, argument: Argument) -> None:
        name = argument.value_name
        place = Place(argument.name, argument.value.dtype, 0, fixed=argument.name)
        source = self._full(name)
        self.work.store(Stored.contiguous(self.work, place, source.shape), source)

    def _full(self, name: str) -> Array:
        """A value with all its axes."""
        if name in self._once:
            return self._once[name]
        self._step(name, 0)  # makes its place, if it has none
        return Stored.contiguous(self.work, self._whole[name], self._shape(name))

    def _single(self, node: Node) -> None:
        """An operation outside of all loops."""
        self._comment(node)
        result = self._apply(node, [self._full(name) for name in node.inputs])
        self._once[node.output] = self._kept_end(node.output, result)

    def _kept_end(self, name: str, result: Array) -> Array:
        if name in self._once:  # an output
            target = self._once[name]
            assert isinstance(target, Stored)
            self.work.store(target, result)
            return target
        stored = self.work.stored(result)
        if isinstance(stored, Stored):
            stored.place.whole = True
        return stored

    def _loop(self, loop: Loop, k: int) -> None:
        start = self.work.position
        t, bound = self.work.names.new("t"), self.work.bound(Steps(loop.axis))
        walk = f"{t} = {bound} - 1; {t} >= 0; --{t}" if loop.reverse else f"{t} = 0; {t} < {bound}; ++{t}"
        for _, item in loop.items:
            if isinstance(item, Scan):
                self._start(item)
        self.work.open(f"for (int32_t {walk})")
        local: dict[str, Array] = {}
        for _, item in loop.items:
            if isinstance(item, Scan):
                self._scan(item, local, t)
            else:
                self._stepwise(item, local, t)
        for node in loop.ends:
            self._end(node, local, t, bound)
        self.work.close()
        self._intervals.append((start, self.work.position))
        for _, item in loop.items:
            if isinstance(item, Scan):
                self._finish(item)

    def _read(self, name: str, local: Mapping[str, Array], t: Index) -> Array:
        """A value as an operation of step ``t`` sees it."""
        if name in local:
            return local[name]
        if self._walks(name):
            return self._step(name, t)
        return self._once[name]

    def _stepwise(self, node: Node, local: dict[str, Array], t: Index) -> None:
        self._comment(node)
        if node.op in WINDOWS:
            result = self._apply(node, [self._full(name) for name in node.inputs])[:, t]
        elif node.op in COUNTING:
            read = [self._spread(name, local, t) for name in reads(node)]
            counted = [Array(self.work, self._shape(name), "") for name in node.inputs[len(read) :]]
            result = self._apply(node, [*read, *counted])[:, t]
        else:
            result = self._apply(node, [self._read(name, local, t) for name in node.inputs])
        local[node.output] = self._result(node.output, result, t)

    def _spread(self, name: str, local: Mapping[str, Array], t: Index) -> Array:
        """A step as if it were its sequence: for operations that ask which step it is, and are asked for it alone."""
        array = self._read(name, local, t)
        if not self._walks(name):
            return array

        def function(block: Block, index: tuple[Index, ...]) -> str:
            return array.element(block, array.aligned((0, *index[2:])))

        return Element(self.work, self._shape(name), array.dtype, function)

    def _result(self, name: str, result: Array, t: Index) -> Array:
        """The value of an operation in a loop: on demand, for a step, or for the call."""
        if name in self._alone:
            return result
        if name in self._kept or name in self._whole:
            target = self._step(name, t)
            self.work.store(target, result)
            return target
        return self.work.stored(result)

    def _scan(self, scan: Scan, outer: dict[str, Array], t: Index) -> None:
        local = {name: self._read(name, outer, t) for name in scan.captures}
        local |= {inner: self._read(name, outer, t) for inner, name in scan.sequences.items()}
        states = {name: self._state(scan, name) for name in scan.states}
        local |= {before: states[name] for name, (before, _) in scan.states.items()}
        for node in scan.body:
            self._comment(node)
            result = self._apply(node, [local[name] for name in node.inputs])
            local[node.output] = result if node.output in self._alone else self.work.stored(result)
        for name, inner in scan.outputs.items():
            value = local[inner]
            if name in self._kept or name in self._whole:
                self.work.store(self._step(name, t), value)
            outer[name] = self._of_no_state(value)
        after = {name: self._of_no_state(local[inner]) for name, (_, inner) in scan.states.items()}
        if not after:
            return
        if scan.lengths is not None:
            self.work.open(f"if ({t} < {self._number(scan.lengths)})")
        for name, value in after.items():
            self.work.store(states[name], value)
        if scan.lengths is not None:
            self.work.close()

    def _start(self, scan: Scan) -> None:
        """States of a scan alone start from values; the last states of a scan are values."""
        for name, start in scan.starts.items():
            value = self._once[start]
            self._started[name] = self.work.place(value.dtype, value.shape, name)
            self._started[name].place.whole = self._started[name].place.is_state = True
            self.work.store(self._started[name], value)
        for outer, name in scan.finals.items():
            if outer not in self._once:  # an output is copied in the end
                self._once[outer] = self._state(scan, name)

    def _finish(self, scan: Scan) -> None:
        for outer, name in scan.finals.items():
            if outer in self.program.outputs:
                target = self._once[outer]
                assert isinstance(target, Stored)
                self.work.store(target, self._state(scan, name))

    def _state(self, scan: Scan, name: str) -> Stored:
        if name in scan.starts:
            return self._started[name]
        state = self.program.states[name]
        place = Place(name, state.dtype, 0, fixed=f"state->{self.members[name]}", is_state=True)
        return Stored.contiguous(self.work, place, (1, *state.shape))

    def _of_no_state(self, value: Array) -> Array:
        """A copy of what is read from a state: the state is about to change."""
        return self.work.copied(value) if isinstance(value, Stored) and value.place.is_state else value

    def _number(self, name: str) -> str:
        """The C expression of lengths."""
        return self._once[name].element(Block([], self.work.names.new), (0,))

    def _end(self, node: Node, local: Mapping[str, Array], t: Index, bound: Index) -> None:
        """The last valid step or one that is named, where it is this one."""
        self._comment(node)
        sequence, *lengths = node.inputs
        value = self._read(sequence, local, t)
        target = self._once.get(node.output)
        if target is None:
            target = self.work.place(value.dtype, self._shape(node.output), node.output)
            target.place.whole = True
            self._once[node.output] = target
        assert isinstance(target, Stored)
        index = node.attributes["index"] if node.op == "step" else -1
        place: Index = index if index >= 0 else plus(self._number(lengths[0]) if lengths else bound, index)
        self.work.open(f"if ({t} == {place})")
        self.work.store(target, value)
        self.work.close()

    def _apply(self, node: Node, inputs: list[Array]) -> Array:
        dtype = self.values[node.output].dtype
        try:
            result = OPS[node.op].apply(self.ops, node, inputs, self._roles[node.output], dtype)
        except (AttributeError, TypeError) as error:  # a word that COps has not, or a form that C has not
            raise IrnnError(f"the operation {node.op} ({node.output}) has no C99 form here: {error}") from error
        return self.ops.to(result, dtype)

    def _comment(self, node: Node) -> None:
        text = f"{node.output} = {node.op}({', '.join(node.inputs)})".replace("*/", "* /")
        self.work.emit([f"/* {text} */"])

    def _extend(self) -> None:
        """What is kept over a loop lives as long as the loop."""
        for place in self.work.places:
            for start, end in self._intervals:
                if place.whole and start <= place.first <= end:
                    place.first = start
                if place.whole and start <= place.last <= end:
                    place.last = end

    @property
    def lines(self) -> list[str]:
        """The function's statements."""
        return self.work.lines
