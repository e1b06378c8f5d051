"""The operations namespace of ``irnn.arithmetic.fixed_point`` on rows: what a kernel set may replace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm import tirx

from deploy_tvm.codegen import narrow
from deploy_tvm.codegen.emitter import Emitter, Expr, cast, constant, lanes_of, load
from deploy_tvm.codegen.rows import (
    SLACK,
    Block,
    Row,
    buffer_row,
    combine,
    first_lanes,
    narrowed,
    number,
    scalar,
    segments,
    whole_registers,
)
from irnn.arithmetic import fixed_point


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
