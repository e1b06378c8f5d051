"""Piecewise-linear functions on real numbers: what training sees of the integers' tables.

Several of one value (the gates of a cell) are computed together, and where the value is on a grid of few integers and
there are many steps, by a table of all of them: a step of a recurrent network takes as long as its operations are many.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from irnn.quant.fake import Grid
from irnn.quant.pwl import PwlTable


class Lines(NamedTuple):
    """One function, or ``n`` side by side that share the starts of their pieces (those of any of them).

    starts ``[pieces - 1]``, ascending: where each piece but the first begins.  slopes, intercepts ``[pieces]``, or
    ``[n * pieces]`` with ``first [n, 1]``: where each function's begin.  low, high: the ends of the values; step: what
    these are multiples of, None where they are not rounded; numbers, or ``[n, 1]``.
    """

    starts: Tensor
    slopes: Tensor
    intercepts: Tensor
    first: Tensor | None
    low: float | Tensor
    high: float | Tensor
    step: float | Tensor | None

    def to(self, device: torch.device) -> Lines:
        """The same, there."""
        there = {name: part.to(device) for name, part in self._asdict().items() if isinstance(part, Tensor)}
        return self._replace(**there)


def lines_of(table: PwlTable) -> Lines:
    """Those of a table, which nothing rounds yet."""
    real = table.real_knots[1:], table.real_slopes, table.real_values - table.real_slopes * table.real_knots
    starts, slopes, intercepts = (torch.as_tensor(part, dtype=torch.float32) for part in real)
    low, high = ((end - table.output_zero_point) * table.output_scale for end in (table.output_min, table.output_max))
    return Lines(starts, slopes, intercepts, None, low, high, None)


def side_by_side(functions: list[Lines]) -> Lines:
    """``n`` functions as one, all of them rounded or none."""
    starts = torch.cat([f.starts for f in functions]).unique()
    pieces = [torch.cat([f.starts.new_zeros(1, dtype=torch.long), torch.bucketize(starts, f.starts, right=True)])
              for f in functions]  # fmt: skip
    slopes, intercepts = (
        torch.stack([part[piece] for part, piece in zip(parts, pieces, strict=True)])
        for parts in ([f.slopes for f in functions], [f.intercepts for f in functions])
    )

    def column(values: list[Any]) -> Tensor:
        return torch.tensor(values, dtype=slopes.dtype)[:, None]

    step = None if functions[0].step is None else column([f.step for f in functions])
    low, high = column([f.low for f in functions]), column([f.high for f in functions])
    first = torch.arange(len(functions))[:, None] * slopes.shape[1]
    return Lines(starts, slopes.flatten(), intercepts.flatten(), first, low, high, step)


def evaluate(lines: Lines, x: Tensor) -> tuple[Tensor, Tensor]:
    """x ``[..., size]``, or of functions side by side ``[..., n, size]`` -> values and slopes, 0 beyond the ends."""
    piece = torch.bucketize(x, lines.starts, right=True)
    if lines.first is None:
        slope, intercept = lines.slopes[piece], lines.intercepts[piece]
    else:
        slope, intercept = _picked(piece.add_(lines.first), lines.slopes, lines.intercepts)
    y = torch.addcmul(intercept, slope, x)
    clipped = torch.clamp(y, lines.low, lines.high)  # type: ignore[arg-type]
    slope.mul_(y == clipped)
    # The ends are whole steps, so rounding cannot leave them.
    # A new tensor, see `FakeQuantize`.
    return clipped if lines.step is None else clipped.div_(lines.step).add_(0.5).floor_() * lines.step, slope


def _picked(index: Tensor, *tables: Tensor) -> list[Tensor]:
    """Entries of tables; indices in brackets take a processor twice as long, pairs of them ten times."""
    return [table.index_select(0, index.flatten()).view(index.shape) for table in tables]


class PwlFunction(torch.autograd.Function):
    """:class:`Lines` of x; the gradient is the piece's slope."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        starts: Tensor,
        slopes: Tensor,
        intercepts: Tensor,
        first: Tensor | None,
        low: float | Tensor,
        high: float | Tensor,
        step: float | Tensor | None,
    ) -> Tensor:
        y, slope = evaluate(Lines(starts, slopes, intercepts, first, low, high, step), x.contiguous())
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None, None, None, None, None, None, None


class Table(NamedTuple):
    """Values and slopes at every integer of a grid, ``[integers]`` or ``[n * integers]``; q stands at ``place + q``."""

    values: Tensor
    slopes: Tensor
    place: Tensor


def tabulate(lines: Lines, grid: Grid) -> Table:
    """grid: that of x; of functions side by side each has a scale, or all have one."""
    integers = torch.arange(grid.low, grid.high + 1, dtype=torch.float32, device=grid.scale.device)
    shifted = integers if grid.zero_point is None else integers - grid.zero_point
    values, slopes = evaluate(lines, shifted * grid.scale)
    count = 1 if lines.first is None else len(lines.first)
    place = torch.arange(count, dtype=torch.float32, device=grid.scale.device)[:, None] * len(integers) - grid.low
    return Table(values.flatten(), slopes.flatten(), place if count > 1 else place[0])


class LookUp(torch.autograd.Function):
    """The lines of x by a table at x's integers, which ``FakeQuantize`` gave."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, integers: Tensor, table: Table) -> Tensor:
        value, slope = _picked((integers + table.place).long(), table.values, table.slopes)
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None, None


class TableCache:
    """The last table of a processor, whose scales can be compared; a GPU would be waited for, and makes it anew."""

    def __init__(self) -> None:
        self._made: tuple[Lines, Grid, Table] | None = None

    def __reduce__(self) -> tuple[type[TableCache], tuple[()]]:
        return TableCache, ()  # copies of a model make their own

    def __call__(self, lines: Lines, grid: Grid) -> Table:
        """See :func:`tabulate`."""
        if grid.scale.device.type != "cpu":
            return tabulate(lines, grid)
        if self._made is None or self._made[0] is not lines or not _same(self._made[1], grid):
            self._made = lines, grid, tabulate(lines, grid)
        return self._made[2]


def _same(a: Grid, b: Grid) -> bool:
    """Whether two grids are one; the zero point is part of ``rounding``."""
    return (a.low, a.high) == (b.low, b.high) and torch.equal(a.scale, b.scale) and torch.equal(a.rounding, b.rounding)
