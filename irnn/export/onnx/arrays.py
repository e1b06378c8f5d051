"""Arrays that are values of an ONNX graph: what ``Operation.apply`` computes with when a program becomes a model.

Every operation on an array writes nodes at once; what is known to the export is computed at once instead, by NumPy.
Arithmetic is that of int32 and int64 alone, for which ONNX Runtime has kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from irnn.export.axes import Size, Steps, Stretch, span
from irnn.export.shapes import broadcast, reshaped

if TYPE_CHECKING:
    from irnn.export.onnx.writer import Writer

WIDE = ("int32", "int64")
SHIFT_MAX = 62


class Array:
    """name: of the graph's value; a known one (``data``) is written as a constant when a node reads it."""

    def __init__(
        self, work: Writer, shape: tuple[Size, ...], dtype: str, name: str = "", data: np.ndarray | None = None
    ) -> None:
        self.work, self.shape, self.dtype, self.data = work, shape, dtype, data
        self._name = name

    @property
    def name(self) -> str:
        """What a node reads."""
        if not self._name:
            assert self.data is not None
            self._name = self.work.constant_name(self.data)
        return self._name

    def known(self, data: np.ndarray) -> Array:
        """Another known array."""
        return Array(self.work, data.shape, str(data.dtype), data=data)

    def _with(self, other: Array | int, op: str, function: Any, dtype: str | None = None) -> Array:
        if not isinstance(other, Array):
            other = self.known(np.array(other, self.dtype))
        for x in (self, other):
            if x.dtype not in WIDE or x.dtype != self.dtype:
                raise TypeError(f"ONNX arithmetic is that of one of {WIDE}, not of {self.dtype} and {other.dtype}")
        if self.data is not None and other.data is not None:
            return self.known(np.asarray(function(self.data, other.data)))
        return self.work.node(op, [self, other], broadcast(self.shape, other.shape), dtype or self.dtype)

    def __add__(self, other: Array | int) -> Array:
        return self._with(other, "Add", np.add)

    def __sub__(self, other: Array | int) -> Array:
        return self._with(other, "Sub", np.subtract)

    def __mul__(self, other: Array | int) -> Array:
        return self._with(other, "Mul", np.multiply)

    def __lshift__(self, other: Array) -> Array:
        """A product: ONNX shifts unsigned integers alone."""
        if self.data is not None and other.data is not None:
            return self.known(self.data << other.data)
        return self * self.work.power_of_two(other)

    def __rshift__(self, other: Array) -> Array:
        """A division that floors."""
        if self.data is not None and other.data is not None:
            return self.known(self.data >> other.data)
        return self // self.work.power_of_two(other)

    def __floordiv__(self, other: Array | int) -> Array:
        """ONNX's division truncates; its ``Mod`` has the sign of the divisor, so what is left is divided exactly."""
        rest = self._with(other, "Mod", np.mod)
        return (self - rest)._with(other, "Div", np.floor_divide)

    def __le__(self, other: Array) -> Array:
        return self._with(other, "LessOrEqual", np.less_equal, "bool") if self.dtype in WIDE else self._narrow_le(other)

    def _narrow_le(self, other: Array) -> Array:
        return self.work.cast(self, "int32") <= self.work.cast(other, "int32")

    def reshape(self, *shape: Any) -> Array:
        """Sizes of the call stay where they are."""
        new = reshaped(self.shape, shape)
        if self.data is not None:
            return self.known(self.data.reshape(new))  # type: ignore[arg-type]  # a constant has no size of a call
        target = []
        for k, size in enumerate(new):
            if isinstance(size, int):
                target.append(size)
            elif k < len(self.shape) and self.shape[k] == size:
                target.append(0)
            else:
                raise TypeError(f"no ONNX Reshape from {self.shape} to {new}")
        return self.work.node("Reshape", [self, self.known(np.array(target, np.int64))], new, self.dtype)

    def swapaxes(self, a: int, b: int) -> Array:
        """Two axes exchanged."""
        order = list(range(len(self.shape)))
        order[a], order[b] = order[b], order[a]
        shape = tuple(self.shape[axis] for axis in order)
        return self.work.node("Transpose", [self], shape, self.dtype, perm=order)

    def __getitem__(self, key: Any) -> Array:
        if self.data is not None and not isinstance(key, Array):
            return self.known(self.data[key])
        keys = list(key) if isinstance(key, tuple) else [key]
        rest = len(self.shape) - sum(1 for part in keys if part is not None and part is not Ellipsis)
        at = next((k for k, part in enumerate(keys) if part is Ellipsis), len(keys))
        keys[at : at + 1] = [slice(None)] * rest
        result: Array = self
        axis = 0
        for part in keys:
            if part is None:
                result = result._new_axis(axis)
                axis += 1
            elif isinstance(part, slice):
                result = result._sliced(axis, part)
                axis += 1
            else:
                result = result._one(axis, int(part))
        return result

    def _new_axis(self, axis: int) -> Array:
        shape = (*self.shape[:axis], 1, *self.shape[axis:])
        return self.work.node("Unsqueeze", [self, self.known(np.array([axis], np.int64))], shape, self.dtype)

    def _one(self, axis: int, index: int) -> Array:
        shape = (*self.shape[:axis], *self.shape[axis + 1 :])
        return self.work.node("Gather", [self, self.known(np.array(index, np.int64))], shape, self.dtype, axis=axis)

    def _sliced(self, axis: int, part: slice) -> Array:
        size = self.shape[axis]
        start, stop, step = part.start or 0, size if part.stop is None else part.stop, part.step or 1
        if isinstance(stop, int) and isinstance(size, int):
            stop = min(stop, size)
        new = span(start, stop, step)
        if new == size and step == 1:
            return self
        if isinstance(stop, (Steps, Stretch)):
            end = self.work.size(stop).reshape(1)
        else:
            end = self.known(np.array([stop], np.int64))
        begin, axes, steps = (self.known(np.array([v], np.int64)) for v in (start, axis, step))
        shape = (*self.shape[:axis], new, *self.shape[axis + 1 :])
        return self.work.node("Slice", [self, begin, end, axes, steps], shape, self.dtype)
