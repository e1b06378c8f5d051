"""Rows: the operations namespace with which ``irnn.arithmetic.fixed_point`` is staged into TIR.

A :class:`Row` stands for a vector whose elements are computed on demand, a register of ``lanes`` elements at a time.
``fixed_point.requantize(ops, ...)`` on rows builds a row; a loop that stores it evaluates it.  So the compiled library
executes the very text that the interpreter executes, fused into as few loops as the program allows.

Elements beyond a row's end may be computed (the last register is not always full) and are never stored anywhere but in
padding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from tvm import tirx

from deploy_tvm.codegen import narrow
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
from irnn.arithmetic import fixed_point

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


@dataclass(frozen=True)
class Term:
    """One term of a requantization: ``x`` from ``low`` to ``high``, and the constants by which it is rescaled.

    ``constant(role, array)`` gives an array's row: those of the roles "multiplier" and "shift", or of what is derived.
    """

    x: Row
    multiplier: np.ndarray
    shift: np.ndarray
    low: int
    high: int
    constant: Callable[[str, np.ndarray], Row]

    def factor(self) -> tuple[Row, Row]:
        """(multiplier, shift)."""
        return self.constant("multiplier", self.multiplier), self.constant("shift", self.shift)


@dataclass(frozen=True)
class Table:
    """A piecewise-linear function: int64 arrays, one element a piece."""

    knots: np.ndarray
    slopes: np.ndarray
    intercepts: np.ndarray


class RowOps:
    """The operations namespace of ``irnn.arithmetic.fixed_point`` on rows, for any target.

    ``emitter`` receives the loops of ``row_sum``; tables are NumPy arrays.  Kernels for one instruction set replace
    ``take``, ``count_le`` and ``requantize`` by sub-classing.
    """

    def __init__(self, emitter: Emitter, lanes: int) -> None:
        self.emitter, self.lanes = emitter, lanes

    def to(self, x: Row | int | np.integer | np.ndarray, dtype: str) -> Row:
        if not isinstance(x, Row):
            return number(int(x.item() if isinstance(x, np.ndarray) else x), dtype)
        if x.wide is not None and dtype == "int32":
            return x.wide
        return combine(dtype, lambda v: cast(v, dtype), x)

    def clip(self, x: Row, low: int, high: int) -> Row:
        def function(v: Expr) -> Expr:
            lanes = lanes_of(v)
            return tirx.Min(tirx.Max(v, constant(low, x.dtype, lanes)), constant(high, x.dtype, lanes))

        return self._now(combine(x.dtype, function, x))

    def abs(self, x: Row) -> Row:
        def function(v: Expr) -> Expr:
            return tirx.Max(v, constant(0, x.dtype, lanes_of(v)) - v)

        return combine(x.dtype, function, x)

    def take(self, table: np.ndarray, index: Row) -> Row:
        """``table[index]`` by a chain of selections: no gather, so it runs on every vector unit."""

        def function(i: Expr) -> Expr:
            lanes = lanes_of(i)
            value = constant(int(table[0]), "int32", lanes)
            for k in range(1, len(table)):
                at_least = i >= constant(k, "int32", lanes)
                value = tirx.Select(at_least, constant(int(table[k]), "int32", lanes), value)
            return value

        return combine("int32", function, index)

    def count_le(self, table: np.ndarray, x: Row) -> Row:
        """How many elements of the ascending ``table`` are <= x."""

        def function(v: Expr) -> Expr:
            lanes = lanes_of(v)
            v = cast(v, "int32")
            count = constant(0, "int32", lanes)
            for knot in table:
                count = count + cast(v >= constant(int(knot), "int32", lanes), "int32")
            return count

        return combine("int32", function, x)

    def requantize(self, terms: list[Term], zero_point: int, low: int, high: int, dtype: str) -> Row:
        """``fixed_point.requantize``."""
        return fixed_point.requantize(self, [(t.x, *t.factor()) for t in terms], zero_point, low, high, dtype)

    def pwl(self, x: Row, table: Table, shift: int, low: int, high: int, dtype: str) -> Row:
        """``fixed_point.pwl``, in 32 bits where ``narrow`` finds how."""
        found = narrow.lines(table.knots, table.slopes, table.intercepts, shift, low, high, x.dtype)
        if found is None:
            return fixed_point.pwl(self, x, table.knots, table.slopes, table.intercepts, shift, low, high, dtype)
        piece = self.count_le(table.knots, x) - number(1, "int32")
        distance = self.to(x, "int32")
        if found.centres is None:
            products = self.short_products(distance, found.slopes, piece)
        else:
            products = (distance - self.take(found.centres, piece)) * self.take(found.slopes, piece)
        y = (products + self.take(found.offsets, piece)) >> number(found.shift, "int32")
        return narrowed(self.clip(y, low, high) if found.clamps else y, dtype)

    def short_products(self, a: Row, table: np.ndarray, index: Row) -> Row:
        """``a table[index]`` in int32, of numbers that fit int16."""
        return a * self.take(table, index)

    def where(self, condition: Row, a: Row, b: Row) -> Row:
        """``a`` where the condition (see :func:`below`) holds, else ``b``."""
        size = next((row.size for row in (condition, a, b) if row.size is not None), None)

        def function(block: Block, start: int) -> Expr:
            # The condition is no number: it is evaluated in its place.
            return tirx.Select(condition.function(block, start), block.at(a, start), block.at(b, start))

        return Row(size, a.dtype, function, condition.breaks | a.breaks | b.breaks)

    def row_sum(self, x: Row) -> Row:
        """The sum of a row, computed here and now."""
        return self._reduced(x, 0, lambda a, b: a + b)

    def row_max(self, x: Row) -> Row:
        """The largest element of a row, computed here and now."""
        lowest = int(np.iinfo(x.dtype).min) if x.dtype.startswith("int") else int(np.finfo(x.dtype).min)
        return self._reduced(x, lowest, tirx.Max)

    def _reduced(self, x: Row, neutral: int, operation: Callable[[Expr, Expr], Expr]) -> Row:
        emitter, lanes = self.emitter, self.lanes
        partial = emitter.alloc((lanes,), x.dtype, "partial")
        emitter.store(partial, constant(neutral, x.dtype, lanes), 0)
        for start, stop in segments(x):
            whole, rest = whole_registers(start, stop, lanes)
            if not isinstance(whole, int) or whole:
                with emitter.loop(whole) as i:
                    value = Block(emitter, i * lanes, lanes).at(x, start)
                    emitter.store(partial, operation(load(partial, lanes, 0), value), 0)
            if rest:
                value = Block(emitter, whole * lanes, lanes).at(x, start)
                emitter.store(partial, operation(load(partial, lanes, 0), first_lanes(value, rest, neutral)), 0)
        total = load(partial, 1, 0)
        for k in range(1, lanes):
            total = operation(total, load(partial, 1, k))
        return scalar(emitter.hold(total))

    def floor_div(self, a: Row, b: Row) -> Row:
        def function(p: Expr, q: Expr) -> Expr:
            quotient = self.emitter.hold(tirx.truncdiv(p, q))
            rest = p - quotient * q
            return quotient - cast(rest < constant(0, a.dtype, lanes_of(p)), a.dtype)

        return self._now(combine(a.dtype, function, a, b))

    def keep(self, rows: list[Row]) -> list[Row]:
        """The same rows, computed here: single numbers in registers, vectors in memory, those of one loop."""
        vectors = [row for row in rows if row.size is not None]
        kept = {id(row): self._now(row) for row in rows if row.size is None}
        if vectors:
            size, lanes = vectors[0].length, self.lanes
            buffers = [self.emitter.alloc((-(-size // lanes) * lanes + SLACK,), row.dtype, "kept") for row in vectors]
            breaks = frozenset().union(*(row.breaks for row in vectors))
            # In ascending order: a register that reaches past its segment is overwritten by the next one.
            for start, stop in segments(Row(size, "", lambda block, at: None, breaks)):
                whole, rest = whole_registers(start, stop, lanes)
                with self.emitter.loop(whole + bool(rest)) as i:
                    block = Block(self.emitter, i * lanes, lanes)
                    for buffer, value in zip(buffers, [block.at(row, start) for row in vectors], strict=True):
                        self.emitter.store(buffer, value, block.index + start)
            pairs = zip(vectors, buffers, strict=True)
            kept |= {id(row): buffer_row(buffer, size, row.dtype) for row, buffer in pairs}
        return [kept[id(row)] for row in rows]

    def isqrt(self, x: Row) -> Row:
        """The integer square root of one number below 2**62, a bit at a time."""
        emitter = self.emitter
        value = self._now(x).function(Block(emitter, 0, 1), 0)
        root = emitter.alloc((1,), "int64", "root")
        emitter.store(root, constant(0, "int64"), 0)
        with emitter.loop(31, "bit") as bit:
            trial = emitter.hold(load(root, 1, 0) + (constant(1, "int64") << (constant(30, "int64") - bit)))
            emitter.store(root, tirx.Select(trial * trial <= value, trial, load(root, 1, 0)), 0)
        return scalar(emitter.hold(load(root, 1, 0)))

    def _now(self, x: Row) -> Row:
        """Single numbers are computed at once, outside the loops that use them."""
        if x.size is not None:
            return x
        return scalar(self.emitter.hold(x.function(Block(self.emitter, 0, 1), 0)))
