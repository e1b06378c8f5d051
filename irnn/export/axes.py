"""Sizes that only a call knows: how long a sequence is, and what strides and borders leave of it.

``Operation.apply`` computes with the sizes of arrays (``(size + offset) // stride``, ``start + stride * count``).
These classes are sizes for which that arithmetic has a meaning; the exporters say what each becomes in their language.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, overload

from irnn.program.axes import Axis


@dataclass(frozen=True)
class Steps:
    """The length of an axis."""

    axis: Axis

    @staticmethod
    def along(name: str) -> Steps:
        """Of one of a value's ``axes``."""
        return Steps(Axis.parse(name))

    def __add__(self, offset: int) -> Stretch:
        return Stretch(self, 1, offset)

    __radd__ = __add__

    def __floordiv__(self, divisor: int) -> Steps:
        return (self + 0) // divisor

    @overload
    def __rmul__(self, scale: int) -> Stretch: ...

    @overload
    def __rmul__(self, scale: list[Any]) -> Repeated: ...

    def __rmul__(self, scale: int | list[Any]) -> Stretch | Repeated:
        """``scale * count``, and ``[value] * count``, a list of as many values."""
        if isinstance(scale, list):
            (value,) = scale
            return Repeated(value, self)
        return Stretch(self, scale, 0)


@dataclass(frozen=True)
class Stretch:
    """``scale * steps + offset``: a padded axis, or where a strided slice of one ends."""

    steps: Steps
    scale: int
    offset: int

    def __add__(self, offset: int) -> Stretch:
        return Stretch(self.steps, self.scale, self.offset + offset)

    __radd__ = __add__

    def __floordiv__(self, divisor: int) -> Steps:
        if self.scale != 1:
            raise TypeError(f"{self} // {divisor} is no axis that an export knows")
        return Steps(self.steps.axis.after(self.offset, divisor))


@dataclass(frozen=True)
class Repeated:
    """A value at each of ``steps`` places."""

    value: Any
    steps: Steps


Size = int | Steps | Stretch


def span(start: int, stop: Any, step: int) -> Size:
    """How many elements ``start:stop:step`` has, none of them beyond the end."""
    if isinstance(stop, int):
        return max(0, -(-(stop - start) // step))
    if isinstance(stop, Steps):
        if start == 0:
            return stop if step == 1 else (stop + (step - 1)) // step
        stop = stop + 0
    if isinstance(stop, Stretch) and stop.scale == step and stop.offset == start:
        return stop.steps
    raise TypeError(f"a slice {start}:{stop}:{step} has no size that an export knows")
