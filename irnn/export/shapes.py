"""Shapes in which some sizes are known to a call alone (``axes``): broadcasting and reshaping."""

from __future__ import annotations

from math import prod
from typing import Any

from irnn.export.axes import Size

Shape = tuple[Size, ...]


def broadcast(*shapes: Shape) -> Shape:
    """The shape of an elementwise result."""
    rank = max(map(len, shapes))
    result: list[Size] = []
    for sizes in zip(*((1,) * (rank - len(shape)) + shape for shape in shapes), strict=True):
        others = {size for size in sizes if size != 1}
        if len(others) > 1:
            raise ValueError(f"the shapes {shapes} do not fit each other")
        result.append(others.pop() if others else 1)
    return tuple(result)


def reshaped(old: Shape, new: tuple[Any, ...]) -> Shape:
    """The shape that ``reshape(*new)`` gives, with -1 counted out."""
    shape = tuple(new[0]) if len(new) == 1 and isinstance(new[0], tuple) else new
    if -1 not in shape:
        return shape
    elements = prod(size for size in old if isinstance(size, int))
    rest = elements // prod(size for size in shape if isinstance(size, int) and size != -1)
    return tuple(rest if size == -1 else size for size in shape)


def known(size: Size) -> int:
    """A size that the export knows."""
    if not isinstance(size, int):
        raise TypeError(f"the size {size} is known to a call alone")
    return size
