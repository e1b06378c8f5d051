"""Rows: the operations namespace with which ``irnn.arithmetic.fixed_point`` is staged into TIR.

A :class:`Row` stands for a vector whose elements are computed on demand, a register of ``lanes`` elements at a time.
``fixed_point.requantize(ops, ...)`` on rows builds a row; a loop that stores it evaluates it.  So the compiled library
executes the very text that the interpreter executes, fused into as few loops as the program allows.

Elements beyond a row's end may be computed (the last register is not always full) and are never stored anywhere but in
padding.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import (
    Emitter,
    Expr,
    as_index,
    cast,
    constant,
    constant_vector,
    dtype_of,
    lanes_of,
    load,
)
from deploy_tvm.codegen.spans import Part

# A register may begin at any element and reach this many elements past the end of a row: buffers have that much room.
SLACK = 32


class Block:
    """One register's worth of elements: those from ``start + index`` on, where ``start`` is a known integer.

    Rows evaluated twice in a block are computed once.
    """

    def __init__(self, emitter: Emitter, index: Expr, lanes: int) -> None:
        self.emitter = emitter
        self.index = as_index(index)
        self.lanes = lanes
        self.memory: dict[tuple[int, int], tuple[Row, Expr]] = {}

    def at(self, row: Row, start: int) -> Expr:
        """The elements of ``row`` as an expression of ``lanes`` lanes."""
        key = (id(row), start)
        if key not in self.memory:
            with self.emitter.part(row.part):
                self.memory[key] = (row, self.emitter.hold(row.function(self, start)))
        return self.memory[key][1]


class Row:
    """A lazy vector.  ``size`` None: one number for all elements; a size that only a call knows is an expression.

    ``function(block, start)`` gives the expression; ``breaks`` are the elements at which the expression changes its
    form (joints of a concatenation, groups of a norm), so that no register may lie across one.  ``wide``: the same
    numbers in int32, where they were computed so: who needs them in 32 bits saves two conversions.
    """

    def __init__(
        self,
        size: int | Expr | None,
        dtype: str,
        function: Callable[[Block, int], Expr],
        breaks: frozenset[int] = frozenset(),
        wide: Row | None = None,
    ) -> None:
        self.size, self.dtype, self.function, self.breaks, self.wide = size, dtype, function, breaks, wide
        # What its instructions are counted as; None: as those of the row that reads it.
        self.part: Part | None = None

    def belong(self, part: Part) -> None:
        """Count the row's instructions as those of ``part``."""
        self.part = part
        if self.wide is not None:
            self.wide.part = part

    @property
    def length(self) -> int | Expr:
        """The size of a row that is a vector, not one number for all elements."""
        assert self.size is not None
        return self.size

    def _with(self, other: Row, operation: Callable[[Expr, Expr], Expr]) -> Row:
        return combine(self.dtype, operation, self, other)

    def __add__(self, other: Row) -> Row:
        return self._with(other, lambda a, b: a + b)

    def __sub__(self, other: Row) -> Row:
        return self._with(other, lambda a, b: a - b)

    def __mul__(self, other: Row) -> Row:
        return self._with(other, lambda a, b: a * b)

    def __le__(self, other: Row) -> Row:
        """A condition for :meth:`RowOps.where`."""
        return combine("bool", lambda a, b: a <= b, self, other)

    def __rshift__(self, other: Row) -> Row:
        return self._with(other, lambda a, b: a >> b)

    def __lshift__(self, other: Row) -> Row:
        return self._with(other, lambda a, b: a << b)


def combine(dtype: str, operation: Callable[..., Expr], *rows: Row) -> Row:
    """The elementwise ``operation`` on rows of one size (or single numbers)."""
    sizes = {row.size for row in rows if row.size is not None}
    if len(sizes) > 1:
        raise ValueError(f"rows of different sizes {sorted(sizes)} in one operation")
    breaks = frozenset().union(*(row.breaks for row in rows))

    def function(block: Block, start: int) -> Expr:
        return operation(*(block.at(row, start) for row in rows))

    return Row(sizes.pop() if sizes else None, dtype, function, breaks)


def number(value: int | float, dtype: str) -> Row:
    """A known number."""
    return Row(None, dtype, lambda block, start: constant(value, dtype, block.lanes))


def scalar(value: Expr) -> Row:
    """A number that an earlier statement has computed."""
    dtype = dtype_of(value)
    return Row(None, dtype, lambda block, start: cast(value, dtype, block.lanes))


def buffer_row(buffer: tirx.Buffer, size: int | Expr, dtype: str, *leading: Expr, first: Expr = 0) -> Row:
    """The last axis of a buffer from element ``first`` on, at the indices ``leading``.

    The buffer has ``SLACK`` elements to spare at its end.
    """
    return Row(size, dtype, lambda block, start: load(buffer, block.lanes, *leading, block.index + (first + start)))


def known_row(values: np.ndarray, buffer: tirx.Buffer | None, dtype: str) -> Row:
    """A constant vector: a number where all elements are equal, else the contents of ``buffer``."""
    if buffer is None:
        return number(int(values.flat[0]), dtype)
    return buffer_row(buffer, values.size, dtype)


def below(length: Expr, size: Expr) -> Row:
    """Whether an element's index is below ``length`` (int64): a condition for ``where``."""

    def function(block: Block, start: int) -> Expr:
        first = block.index + start
        index = first if block.lanes == 1 else tirx.Ramp(first, as_index(1), block.lanes)
        return index < cast(length, "int64", block.lanes)

    return Row(size, "bool", function)


def part(row: Row, start: int, stop: int) -> Row:
    """Elements start..stop of a row."""
    if row.size is None:
        return row
    breaks = frozenset(b - start for b in row.breaks if start < b < stop)
    wide = None if row.wide is None else part(row.wide, start, stop)
    return Row(stop - start, row.dtype, lambda block, at: block.at(row, at + start), breaks, wide)


def narrowed(row: Row, dtype: str) -> Row:
    """Numbers in int32 that fit ``dtype``, in it."""
    narrow = combine(dtype, lambda v: cast(v, dtype), row)
    return Row(narrow.size, dtype, narrow.function, narrow.breaks, row)


def join(rows: list[Row]) -> Row:
    """Rows one after the other."""
    begins = np.cumsum([0, *(row.size for row in rows)]).tolist()
    breaks = frozenset(begins[1:-1])
    for begin, row in zip(begins, rows, strict=False):
        breaks |= {begin + b for b in row.breaks}

    def function(block: Block, start: int) -> Expr:
        which = max(k for k in range(len(rows)) if begins[k] <= start)
        return block.at(rows[which], start - begins[which])

    return Row(begins[-1], rows[0].dtype, function, breaks)


def segments(row: Row) -> list[tuple[int, int]]:
    """(start, stop) of the stretches without breaks."""
    bounds = [0, *sorted(row.breaks), row.length]
    return list(pairwise(bounds))


def whole_registers(start: int, stop: int | Expr, lanes: int) -> tuple[int | Expr, int]:
    """(whole registers, elements left over) between two elements.

    A row whose size only a call knows is counted in whole registers: its last one holds what a reduction may read.
    """
    if isinstance(stop, int):
        return divmod(stop - start, lanes)
    return tirx.floordiv(stop - start + (lanes - 1), as_index(lanes)), 0


def first_lanes(value: Expr, count: int, other: int = 0) -> Expr:
    """``value`` with ``other`` from lane ``count`` on."""
    lanes = lanes_of(value)
    inside = constant_vector([int(k < count) for k in range(lanes)], "int32") >= constant(1, "int32", lanes)
    rest = tirx.Cast(value.ty, constant(other, "int32", lanes))
    return tirx.Select(inside, value, rest)
