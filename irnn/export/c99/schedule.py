"""In which loop over time each operation runs: as few loops as the program allows, so that little is kept for a call.

A program that streams becomes one loop, in which every value lives for one step.  A scan from the last step to the
first has a loop of its own, and what it reads of other loops is kept for the whole call.  Operations that see one step
are put where they are read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from irnn.errors import IrnnError
from irnn.export.c99.pruning import reads
from irnn.program import Node, Program, Scan
from irnn.program.axes import Axis

# Operations of one step: the same function of every step's inputs, whatever the others hold.
STEPWISE = frozenset({
    "embedding", "scaled_embedding", "linear", "requantize", "add", "multiply", "pwl", "mad_norm", "layer_norm",
    "slice", "concat", "residual", "subtract", "affine", "mod_relu", "complement", "minimum", "multibit", "flatten",
    "attention_weights", "attention_context", "top",
})  # fmt: skip
COUNTING = frozenset({"mask", "repeat"})  # ... that know which step it is, or how many there are
WINDOWS = frozenset({"patches", "subsample", "max_pool", "mean_pool"})  # steps of another axis, each of several steps
ENDS = frozenset({"last", "step"})  # one of the steps
SINGLE = frozenset({"shorten", "time_mean", "time_max", "softmax_mean"})  # what has no time, of all steps
KNOWN = STEPWISE | COUNTING | WINDOWS | ENDS | SINGLE

Place = tuple[str, int]  # ("loop", k), or ("once", k): before loop k


@dataclass
class Loop:
    """A walk along an axis; items in the program's order.  ends: one step each of what is made here."""

    axis: Axis
    reverse: bool
    items: list[tuple[int, Node | Scan]] = field(default_factory=list)
    ends: list[Node] = field(default_factory=list)


@dataclass
class Schedule:
    """once[k] runs before loops[k]; made: where each value is made.  Inputs are nowhere."""

    loops: list[Loop]
    once: list[list[Node]]
    made: dict[str, Place]


def schedule(program: Program) -> Schedule:
    """Every operation in its place; one that no C is known for is refused by name."""
    for node in program.walk():
        if node.op not in KNOWN:
            raise IrnnError(
                f"the operation {node.op} ({node.output}) has no C99 form; those that have one are "
                f"{', '.join(sorted(KNOWN))}"
            )
    return _Scheduler(program).build()


class _Scheduler:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.values = program.inputs | program.values
        self.loops: list[Loop] = []
        self.once: dict[int, list[Node]] = {}
        self.made: dict[str, Place] = {}
        # For what waits for its readers: the loop that must have begun.  (k, True): that must have ended.
        self.waiting: dict[str, tuple[int, Node]] = {}
        self.after: dict[str, set[tuple[int, bool]]] = {name: set() for name in program.inputs}

    def build(self) -> Schedule:
        for order, item in enumerate(self.program.nodes):
            if isinstance(item, Scan):
                self._scan(order, item)
            elif item.op in ENDS:
                self._end(item)
            elif not self._walks(item):
                self._single(item)
            elif item.op in WINDOWS:
                self._window(order, item)
            else:
                self.after[item.output] = set().union(*(self.after[name] for name in reads(item)))
                self.waiting[item.output] = (order, item)
        readers = self._readers()
        for name in reversed(list(self.waiting)):
            if name in self.waiting:
                self._place_waiting(name, readers)
        for loop in self.loops:
            loop.items.sort(key=lambda pair: pair[0])
        count = len(self.loops) + 1
        return Schedule(self.loops, [self.once.get(k, []) for k in range(count)], self.made)

    def _axes(self, name: str) -> tuple[str, ...]:
        return self.values[name].axes

    def _walks(self, node: Node) -> bool:
        """Whether the value is a sequence over time."""
        axes = self._axes(node.output)
        return bool(axes) and Axis.parse(axes[0]).root == "time"

    def _scan(self, order: int, scan: Scan) -> None:
        axis = Axis.parse(self._axes(next(iter(scan.sequences.values())))[0])
        steady = [*scan.captures, *scan.starts.values(), *([scan.lengths] if scan.lengths else [])]
        needs: set[tuple[int, bool]] = set()
        for name in scan.sequences.values():
            needs |= self.after[name]
        for name in steady:
            needs |= self.after[name]
        k = self._loop(axis, scan.reverse, needs, direction=True)
        self.loops[k].items.append((order, scan))
        for name in scan.outputs:
            self.made[name] = ("loop", k)
            self.after[name] = {(k, False)}
        for name in scan.finals:
            self.made[name] = ("once", k + 1)
            self.after[name] = {(k, True)}

    def _loop(self, axis: Axis, reverse: bool, needs: set[tuple[int, bool]], *, direction: bool) -> int:
        """The first loop along ``axis`` that may read what ``needs`` names; a new one where there is none."""
        for k, loop in enumerate(self.loops):
            if loop.axis != axis or (direction and loop.reverse != reverse):
                continue
            if all(j < k if ended else j <= k for j, ended in needs):
                return k
        self.loops.append(Loop(axis, reverse))
        return len(self.loops) - 1

    def _settle(self, name: str) -> None:
        """Give a waiting value and all that it waits for a loop now: somebody reads it as a whole."""
        if name not in self.waiting:
            return
        order, node = self.waiting.pop(name)
        needs = self.after[name]
        k = self._loop(Axis.parse(self._axes(name)[0]), False, needs, direction=False)
        for source in reads(node):
            self._settle_within(source, k)
        self._put(order, node, k)

    def _settle_within(self, name: str, k: int) -> None:
        if name in self.waiting:
            order, node = self.waiting.pop(name)
            for source in reads(node):
                self._settle_within(source, k)
            self._put(order, node, k)

    def _put(self, order: int, node: Node, k: int) -> None:
        self.loops[k].items.append((order, node))
        self.made[node.output] = ("loop", k)
        self.after[node.output] = {(k, False)}

    def _window(self, order: int, node: Node) -> None:
        for name in node.inputs:
            self._settle(name)
        needs = {(k, True) for name in node.inputs for k, _ in self.after[name]}
        self.after[node.output] = needs
        self.waiting[node.output] = (order, node)

    def _end(self, node: Node) -> None:
        """It runs in the loop that makes the sequence; lengths must be known by then."""
        sequence, *lengths = node.inputs
        self._settle(sequence)
        place = self.made.get(sequence)
        known = max((self.made[name][1] for name in lengths if name in self.made), default=0)
        if place is None or known > place[1]:
            self._single(node)
            return
        self.loops[place[1]].ends.append(node)
        self.made[node.output] = ("once", place[1] + 1)
        self.after[node.output] = {(place[1], True)}

    def _single(self, node: Node) -> None:
        for name in node.inputs:
            self._settle(name)
        needs = {k for name in node.inputs for k, _ in self.after[name]}
        before = max(needs, default=-1) + 1
        self.once.setdefault(before, []).append(node)
        self.made[node.output] = ("once", before)
        self.after[node.output] = {(before - 1, True)} if before else set()

    def _readers(self) -> dict[str, list[tuple[str, int]]]:
        """Of each waiting value: those that read it, by name, or the loop of a scan that does."""
        found: dict[str, list[tuple[str, int]]] = {name: [] for name in self.waiting}
        for k, loop in enumerate(self.loops):
            for _, item in loop.items:
                for name in item.sequences.values() if isinstance(item, Scan) else reads(item):
                    if name in found:
                        found[name].append(("", k))
        for _, node in self.waiting.values():
            for name in reads(node):
                if name in found:
                    found[name].append((node.output, -1))
        return found

    def _place_waiting(self, name: str, readers: dict[str, list[tuple[str, int]]]) -> None:
        """Where its first reader is; its readers were placed before."""
        order, node = self.waiting.pop(name)
        loops = [self.made[reader][1] if reader else k for reader, k in readers[name]]
        if loops:
            self._put(order, node, min(loops))
        else:
            k = self._loop(Axis.parse(self._axes(name)[0]), False, self.after[name], direction=False)
            self._put(order, node, k)
