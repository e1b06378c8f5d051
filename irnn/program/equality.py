"""The golden comparison: integers of two executors of a program, outputs and states, one by one.

Executors are equal or they are not: there is no tolerance, and another shape or dtype is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from irnn.errors import IrnnError
from irnn.program.graph import Graph


@dataclass(frozen=True)
class Comparison:
    """How many integers were compared, and how many of each output or state differ (those without any left out)."""

    compared: int = 0
    differing: dict[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Integers that differ."""
        return sum(self.differing.values())

    def __add__(self, other: Comparison) -> Comparison:
        both = {
            name: self.differing.get(name, 0) + other.differing.get(name, 0)
            for name in (*self.differing, *other.differing)
        }
        return Comparison(self.compared + other.compared, both)

    def __str__(self) -> str:
        where = ", ".join(f"{count} of {name}" for name, count in self.differing.items())
        return f"{self.count} of {self.compared} integers differ" + (f": {where}" if where else "")

    def figures(self) -> dict[str, int]:
        """``{"count", "compared"}``, as results hold them."""
        return {"count": self.count, "compared": self.compared}


def named(graph: Graph, outputs: Sequence[Any], states: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    """Results by their names: outputs in the program's order (or the first of them), states by name or in its order."""
    if not isinstance(states, Mapping):
        states = dict(zip(graph.states, states, strict=True))
    first = dict(zip(graph.outputs[: len(outputs)], outputs, strict=True))
    return first | {f"state {name}": states[name] for name in graph.states}


def compare(who: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> Comparison:
    """Count the elements that differ, name by name; another name, shape or dtype is an :class:`IrnnError`.

    who: what gave ``found``, in words; ``expected`` is the reference's.  Both hold NumPy arrays or PyTorch tensors.
    """
    if found.keys() != expected.keys():
        raise IrnnError(f"{who} gives {', '.join(found)}, the reference {', '.join(expected)}")
    compared, differing = 0, {}
    for name in expected:
        ours, theirs = np.asarray(found[name]), np.asarray(expected[name])
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            raise IrnnError(
                f"{who} gives {ours.dtype}{ours.shape} as {name}, the reference {theirs.dtype}{theirs.shape}"
            )
        compared += theirs.size
        if wrong := int(np.count_nonzero(ours != theirs)):
            differing[name] = wrong
    return Comparison(compared, differing)


def total(comparisons: Iterable[Comparison]) -> Comparison:
    """The sum of several comparisons."""
    return sum(comparisons, Comparison())
