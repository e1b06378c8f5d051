"""The steps of a plan, as data: what is put into memory, multiplied, looped over and given back.

A value is *in memory* where it exists for all time steps at once; it is *lazy* where each loop that reads it computes
it again, register by register.  Lengths are never stored: they are arithmetic on an input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from irnn.program import Node, Scan
from irnn.program.axes import Axis


@dataclass(frozen=True)
class Copy:
    """An input whose registers would reach beyond the caller's memory: its rows are copied."""

    name: str


@dataclass(frozen=True)
class Store:
    """Lazy values are put into memory, those of one loop; ``fused`` is what computes them there."""

    names: tuple[str, ...]
    fused: tuple[Node, ...]


@dataclass(frozen=True)
class Early:
    """The product with ``state`` with which the following loop over ``axis`` begins: it may be made before its turn."""

    node: Node
    state: str
    axis: str


@dataclass(frozen=True)
class Product:
    """A matrix product for all time steps: ``fused`` before it, ``finish`` in its loops, ``result`` is what comes out.

    in_place: the result is written where the caller wants it.
    """

    node: Node
    fused: tuple[Node, ...]
    finish: tuple[Node, ...]
    in_place: bool
    early: Early | None

    @property
    def result(self) -> str:
        return (self.finish[-1] if self.finish else self.node).output


@dataclass(frozen=True)
class Surround:
    """The input of a convolution is put into memory with a border around it."""

    node: Node
    fused: tuple[Node, ...]


@dataclass(frozen=True)
class Pick:
    """Some rows of a sequence are put into memory: every so many-th, one of each sequence."""

    node: Node
    fused: tuple[Node, ...]


@dataclass(frozen=True)
class Pool:
    """The rows of a window, which :class:`Surround` has put into memory, become one."""

    node: Node


@dataclass(frozen=True)
class Reduce:
    """The steps of a sequence become one row."""

    node: Node
    fused: tuple[Node, ...]


@dataclass(frozen=True)
class Share:
    """A value that is another one in the same memory."""

    name: str
    source: str


@dataclass(frozen=True)
class Loop:
    """A scan: the loop over time, for each sequence of the batch."""

    scan: Scan


@dataclass(frozen=True)
class Give:
    """An output is put into the caller's memory."""

    name: str
    fused: tuple[Node, ...]


Step = Copy | Store | Product | Surround | Pick | Pool | Reduce | Share | Loop | Give


@dataclass
class Plan:
    """What a kernel does in turn.

    ``given``: inputs read where the caller has them.  ``memories``: inputs along a memory's axis.  ``lengths``: what is
    a length -> (the input, what is made of it).
    """

    steps: list[Step] = field(default_factory=list)
    given: list[str] = field(default_factory=list)
    memories: list[str] = field(default_factory=list)
    lengths: dict[str, tuple[str, Axis]] = field(default_factory=dict)

    def describe(self) -> str:
        """One line a step."""
        lines = [f"read in place: {', '.join([*self.given, *(n for n, (s, _) in self.lengths.items() if s == n)])}"]
        made = {name: replace(axis, root=s).name for name, (s, axis) in self.lengths.items() if s != name}
        lines += [f"length        {name} = {said}" for name, said in made.items()]
        return "\n".join([*lines, *(_line(step) for step in self.steps)])


def _line(step: Step) -> str:
    match step:
        case Copy(name):
            return f"copy          {name}"
        case Store(names, fused):
            return f"store         {', '.join(names)}{_with(fused)}"
        case Product(node, fused, finish, in_place, early):
            rest = f", then {_listed(finish)}" if finish else ""
            where = ", in the caller's memory" if in_place else ""
            first = f"; may begin with {early.node.output}" if early else ""
            return f"product       {step.result} = linear {node.inputs[0]}{_with(fused)}{rest}{where}{first}"
        case Surround(node, fused):
            return f"with border   {node.inputs[0]}{_with(fused)} for {node.output}"
        case Pick(node, fused):
            return f"pick          {node.output} = {node.op} {', '.join(node.inputs)}{_with(fused)}"
        case Pool(node):
            return f"pool          {node.output} = {node.op} of the windows"
        case Reduce(node, fused):
            return f"reduce        {node.output} = {node.op} {', '.join(node.inputs)}{_with(fused)}"
        case Share(name, source):
            return f"same memory   {name} = {source}"
        case Loop(scan):
            way = "backwards:" if scan.reverse else "forwards:"
            made, walked = ", ".join(scan.outputs), ", ".join(scan.sequences.values())
            return f"loop {way:<11}{made} of {walked}: {_listed(scan.body)}"
        case Give(name, fused):
            return f"give          {name}{_with(fused)}"


def _with(fused: Sequence[Node]) -> str:
    return f" (with {_listed(fused)})" if fused else ""


def _listed(nodes: Sequence[Node]) -> str:
    return ", ".join(node.op for node in nodes)
