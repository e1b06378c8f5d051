"""Windows that move over time and bands: what a convolution or a pooling reads, and how many there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from irnn.errors import IrnnError

Pair = tuple[int, int]


class Window(NamedTuple):
    """Sizes of (time, band): of the window, of its steps, of the border before and behind, and from tap to tap."""

    kernel: Pair
    strides: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)

    @classmethod
    def centred(cls, kernel: Pair, strides: Pair = (1, 1)) -> Window:
        """With half a kernel as border: ``ceil(size / stride)`` places.  What format version 1 has."""
        (before_t, behind_t), (before_f, behind_f) = ((size // 2, (size - 1) // 2) for size in kernel)
        return cls(kernel, strides, ((before_t, behind_t), (before_f, behind_f)))

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> Window:
        """That of a node; border and dilation stand there where they are not those of :meth:`centred`."""
        kernel, strides = (tuple(attributes[key]) for key in ("kernel", "strides"))
        if "padding" not in attributes:
            return cls.centred(kernel, strides)
        time, band = (tuple(pair) for pair in attributes["padding"])
        return cls(kernel, strides, (time, band), tuple(attributes["dilation"]))

    def attributes(self) -> dict[str, Any]:
        """As a node says it."""
        said: dict[str, Any] = {"kernel": list(self.kernel), "strides": list(self.strides)}
        if self != Window.centred(self.kernel, self.strides):
            said |= {"padding": [list(pair) for pair in self.padding], "dilation": list(self.dilation)}
        return said

    def reach(self, axis: int) -> int:
        """From the first tap to the last, along time (0) or bands (1)."""
        return self.dilation[axis] * (self.kernel[axis] - 1)

    def offset(self, axis: int) -> int:
        """There are ``floor((size + offset) / stride)`` places along an axis of ``size``."""
        return sum(self.padding[axis]) - self.reach(axis) - 1 + self.strides[axis]

    def places(self, axis: int, size: int) -> int:
        """How many places the window has along an axis of ``size``."""
        return (size + self.offset(axis)) // self.strides[axis]

    def bands(self, size: int, channels: int) -> int:
        """Places along the bands of an element of ``size``; an :class:`IrnnError` where there are none."""
        if size % channels:
            raise IrnnError(f"an element of {size} has no bands of {channels} channels")
        if (bands := self.places(1, size // channels)) < 1:
            raise IrnnError(f"a window of {self.kernel[1]} bands does not fit {size // channels} and their border")
        return bands

    def problems(self) -> list[str]:
        """What is wrong with its sizes, in words."""
        found = []
        if min(*self.kernel, *self.strides, *self.dilation) < 1:
            found.append("kernel, strides and dilation must be at least 1")
        if min(*self.padding[0], *self.padding[1]) < 0:
            found.append("a border cannot be negative")
        return found
