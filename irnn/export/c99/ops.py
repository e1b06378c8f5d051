"""The operations namespace that writes C: ``fixed_point`` and ``Operation.apply`` run on it as they stand."""

from __future__ import annotations

from typing import Any

import numpy as np

from irnn.export.axes import Repeated, Size, Steps
from irnn.export.c99.arrays import Array, Computed, Concat, Element, Index, Number, Scalar, Stored, plus
from irnn.export.c99.block import Block
from irnn.export.c99.constants import Constants, Known, Packed
from irnn.export.c99.memory import Place, c_type
from irnn.export.c99.writer import Writer
from irnn.program.graph import INTEGER_DTYPES


class COps:
    """See ``irnn.arithmetic.fixed_point`` and ``numpy_ops`` for what each name means; the batch is one sequence."""

    def __init__(self, work: Writer, constants: Constants) -> None:
        self.work, self.constants = work, constants

    def to(self, x: Any, dtype: str) -> Array:
        if isinstance(x, Steps):
            return Scalar(self.work, f"({c_type(dtype)}){self.work.bound(x)}", (), dtype)
        if not isinstance(x, Array):
            return Number(self.work, int(x), dtype)
        if isinstance(x, Number):
            return Number(self.work, x.value, dtype, x.shape)
        if x.dtype == dtype:
            return x
        return Computed(self.work, dtype, lambda v: f"({c_type(dtype)}){v}", x, bind=False)

    def where(self, condition: Array, a: Array, b: Array) -> Array:
        if a.dtype != b.dtype:
            raise TypeError(f"where of {a.dtype} and {b.dtype}")
        # Both are bound before: a condition never guards a computation.
        return Computed(self.work, a.dtype, lambda c, p, q: _cast(f"{c} ? {p} : {q}", a.dtype), condition, a, b)

    def clip(self, x: Array, low: int, high: int) -> Array:
        bits, wide = (64, "int64") if x.dtype == "int64" else (32, "int32")
        ends = [Number(self.work, end, wide) for end in (low, high)]
        clamped = Computed(self.work, wide, lambda v, p, q: f"irnn_clamp{bits}({v}, {p}, {q})", x, *ends)
        return self.to(clamped, x.dtype)

    def abs(self, x: Array) -> Array:
        x._wide()
        return Computed(self.work, x.dtype, lambda v: f"irnn_abs{x.dtype[3:]}({v})", x)

    def take(self, table: Array, index: Array) -> Array:
        rank = len(index.shape)

        def function(block: Block, place: tuple[Index, ...]) -> str:
            row = index.element(block, index.aligned(place[:rank]))
            return table.element(block, table.aligned((row, *place[rank:])))

        return Element(self.work, (*index.shape, *table.shape[1:]), table.dtype, function)

    def row_sum(self, x: Array) -> Array:
        return self.work.reduced(x, 0, "{total} += {value};")

    def row_max(self, x: Array) -> Array:
        return self.work.reduced(x, INTEGER_DTYPES[x.dtype][0], "if ({value} > {total}) {total} = {value};")

    def places(self, x: Array) -> Array:
        return Element(self.work, x.shape[-1:], "int32", lambda block, place: f"(int32_t)({place[-1]})")

    def floor_div(self, a: Array, b: Array) -> Array:
        return a // b

    def isqrt(self, x: Array) -> Array:
        return Computed(self.work, "int64", lambda v: f"irnn_sqrt64({v})", x)

    def count_le(self, table: Array, x: Array) -> Array:
        if isinstance(table, Number):
            (size,) = table.shape
            if table.value <= INTEGER_DTYPES[x.dtype][0]:  # a comparison that is always true
                return self.to(size, "int32")
            least = Number(self.work, table.value, "int32")
            return self.where(least <= self.to(x, "int32"), self.to(size, "int32"), self.to(0, "int32"))
        if not isinstance(table, Known):
            raise TypeError("knots are a constant of 8, 16 or 32 bits")
        size = table.data.size
        return Computed(self.work, "int32", lambda v: f"irnn_count_{table.dtype}({table.place.name}, {size}, {v})", x)

    def keep(self, arrays: list[Array]) -> list[Array]:
        return [self.work.stored(array) for array in arrays]

    # what operations of a program need beside

    def constant(self, data: np.ndarray, device: Any = None) -> Array:
        return self.constants.array(self.work, data)

    def weight(self, data: np.ndarray, magnitude: int, device: Any = None) -> Array:
        name, tensor = self.constants.tensor(data)
        array = self.constants.array(self.work, data)
        if isinstance(array, Number):  # rows are read from memory, be they all alike
            if tensor.storage_bits < 8 or tensor.encoding == "codebook":
                return Packed(self.work, self.constants, name, tensor)
            place = self.constants.write(name, data, name)
            return Known(self.work, Place(name, str(data.dtype), data.size, fixed=place), data)
        return array

    def matmul(self, x: Array, weight: Array) -> Array:
        rows, columns = weight.shape
        if rows == 1 and not isinstance(x, (Stored, Scalar)):
            # One row: a sum over what is computed on the way, so that no operand is kept.
            return self.row_sum(self.to(x, "int32") * self.to(weight[0], "int32"))
        operand = self.work.in_memory(x)

        def function(block: Block, place: tuple[Index, ...]) -> str:
            *outer, row = place
            start = plus(operand.place.name, operand.position((*outer, 0)))
            if isinstance(weight, Packed):
                return weight.dot(operand.dtype, str(start), weight.row((row,)))
            assert isinstance(weight, Stored)
            begin = plus(weight.place.name, weight.position((row, 0)))
            return f"irnn_dot_{operand.dtype}_{weight.dtype}({start}, {begin}, {columns})"

        return Element(self.work, (*x.shape[:-1], rows), "int32", function)

    def concat(self, parts: list[Array]) -> Array:
        return Concat(parts)

    def stack(self, items: Repeated) -> Array:
        """A value at every step: the same one, whichever is asked for."""
        value: Array = items.value

        def function(block: Block, place: tuple[Index, ...]) -> str:
            return value.element(block, value.aligned((place[0], *place[2:])))

        return Element(self.work, (value.shape[0], items.steps, *value.shape[1:]), value.dtype, function)

    def valid(self, lengths: Array, count: Size) -> Array:
        def function(block: Block, place: tuple[Index, ...]) -> str:
            return f"{place[-1]} < {lengths.element(block, (place[0],))}"

        return Element(self.work, (1, count), "bool", function)

    def steps(self, sequence: Array, index: Array) -> Array:
        def function(block: Block, place: tuple[Index, ...]) -> str:
            step = index.element(block, (place[0],))
            return sequence.element(block, (place[0], step, *place[1:]))

        return Element(self.work, (1, *sequence.shape[2:]), sequence.dtype, function)

    def pad(self, x: Array, axis: int, before: int, after: int, value: int) -> Array:
        if not before and not after:
            return x
        size = x.shape[axis]
        assert isinstance(size, (int, Steps))
        source = x if isinstance(x, Padded) else self.work.stored(x)
        return Padded(source, axis, before, size + before + after, value)


class Padded(Array):
    """An array in memory with a border; what lies outside is not read."""

    def __init__(self, base: Array, axis: int, before: int, size: Size, value: int) -> None:
        shape = tuple(size if k == axis else old for k, old in enumerate(base.shape))
        super().__init__(base.work, shape, base.dtype)
        self.base, self.axis, self.before, self.value = base, axis, before, value

    def element(self, block: Block, index: tuple[Index, ...]) -> str:  # type: ignore[override]
        place = list(self.aligned(index))
        place[self.axis] = plus(place[self.axis], -self.before)
        at, size = place[self.axis], self.work.bound(self.base.shape[self.axis])
        inside = self.base.element(block, self.base.aligned(place))
        return f"({at} < 0 || {at} >= {size} ? {self.value} : {inside})"


def _cast(text: str, dtype: str) -> str:
    """C computes what is narrower than int as int."""
    return text if dtype in ("int32", "int64", "bool") else f"({c_type(dtype)})({text})"
