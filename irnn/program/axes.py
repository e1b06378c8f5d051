"""Axes of values by their names: how long an axis is, of a sequence that strides and borders have shortened.

An axis is ``floor((root + offset) / factor)`` steps long, ``root`` being an input's: such a length behind a stride or a
convolution is one again.  Its name says so: ``time``, ``time/2`` (the ceiling of a half, what a stride of 2 leaves),
``time-4``, ``(time+3)/2``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from irnn.errors import IrnnError

_NAME = re.compile(r"(?:\((?P<inner>[a-z]+)(?P<a>[+-]\d+)\)|(?P<plain>[a-z]+)(?P<b>[+-]\d+)?)(?:/(?P<factor>\d+))?")


@dataclass(frozen=True)
class Axis:
    """``floor((root + offset) / factor)`` steps."""

    root: str
    offset: int = 0
    factor: int = 1

    @classmethod
    def parse(cls, name: str) -> Axis:
        """From its name."""
        found = _NAME.fullmatch(name)
        if found is None:
            raise IrnnError(f"the axis {name!r} is none: axes are called time, time/2, time-4 or (time+3)/2")
        factor = int(found["factor"] or 1)
        if found["inner"]:
            return cls(found["inner"], int(found["a"]), factor)
        return cls(found["plain"], int(found["b"]) if found["b"] else factor - 1, factor)

    @property
    def name(self) -> str:
        """The one name of this axis."""
        behind = f"/{self.factor}" if self.factor > 1 else ""
        if self.offset == self.factor - 1:
            return self.root + behind
        moved = f"{self.root}{self.offset:+d}"
        return f"({moved}){behind}" if behind else moved

    def after(self, offset: int, factor: int) -> Axis:
        """The axis of ``floor((length + offset) / factor)`` steps, ``length`` being this one's."""
        return Axis(self.root, self.offset + offset * self.factor, self.factor * factor)

    def size(self, root: int) -> int:
        """Its length where the root is ``root`` long."""
        return (root + self.offset) // self.factor

    def root_for(self, size: int) -> int:
        """The shortest root with which this axis has ``size`` steps."""
        return size * self.factor - self.offset


def divided(axis: str, factor: int) -> str:
    """Name of an axis of which every ``factor``-th step is kept: time, time/2, time/4."""
    return Axis.parse(axis).after(factor - 1, factor).name
