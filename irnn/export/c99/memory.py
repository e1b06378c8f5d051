"""The memory of a call: which value lies where, and which of them share a place.

A :class:`Place` is a C array; its name is known in the end, when it is known how long each place is read.  Places of
one dtype whose lives do not meet share a slot of the scratch structure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DTYPES = {
    "int8": "int8_t",
    "uint8": "uint8_t",
    "int16": "int16_t",
    "uint16": "uint16_t",
    "int32": "int32_t",
    "int64": "int64_t",
}


def c_type(dtype: str) -> str:
    """The C type of an array's elements."""
    return "int32_t" if dtype == "bool" else DTYPES[dtype]


@dataclass(eq=False)
class Place:
    """A C array.  fixed: its name where somebody else owns it (caller, state, constant); else it lives in the scratch.

    first, last: the statements between which it is used.
    """

    key: str
    dtype: str
    size: int
    fixed: str | None = None
    is_state: bool = False
    whole: bool = False
    first: int = -1
    last: int = -1

    @property
    def name(self) -> str:
        """How expressions write it: a mark that :func:`resolved` replaces, for places of the scratch."""
        return self.fixed or f"@{self.key}@"

    def touch(self, position: int) -> None:
        """It is read or written there."""
        if self.first < 0:
            self.first = position
        self.last = position


@dataclass
class Slot:
    """A member of the scratch structure: the largest of the places that share it."""

    dtype: str
    size: int
    free_from: int

    @property
    def bytes(self) -> int:
        """What it takes."""
        return self.size * np.dtype(self.dtype).itemsize


def assign(places: list[Place]) -> tuple[list[Slot], dict[str, int]]:
    """(slots, which of them each place has, by its key): the smallest free one that fits, or the largest, grown."""
    slots: list[Slot] = []
    chosen: dict[str, int] = {}
    for place in sorted(places, key=lambda p: (p.first, p.key)):
        free = [k for k, slot in enumerate(slots) if slot.dtype == place.dtype and slot.free_from < place.first]
        fitting = [k for k in free if slots[k].size >= place.size]
        if fitting:
            best = min(fitting, key=lambda k: slots[k].size)
        elif free:
            best = max(free, key=lambda k: slots[k].size)
        else:
            slots.append(Slot(place.dtype, 0, -1))
            best = len(slots) - 1
        slots[best].size = max(slots[best].size, place.size)
        slots[best].free_from = place.last
        chosen[place.key] = best
    return slots, chosen
