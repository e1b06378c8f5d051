"""The gates of a cell: functions of equal parts of one value, computed together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from irnn.errors import IrnnError
from irnn.nn.activation import Activation, Fitted
from irnn.quant.fake import Grid
from irnn.quant.lines import Lines, Table, TableCache, lines_of, side_by_side


class Gates:
    """Functions of a gate's fixed format, of the first groups of one site; groups behind them have none.

    One operation serves all of them where they are piecewise linear (``Executor.gates``).
    """

    def __init__(self, functions: Sequence[Activation]) -> None:
        self.functions = tuple(functions)
        self.site = functions[0].site
        self.parts = self.site.groups
        if any((f.site, f.group, f.output) != (self.site, k, None) for k, f in enumerate(functions)):
            raise IrnnError("gates are functions of a fixed format, of the groups of one site in their order")
        self._cache = TableCache()
        self._joined: tuple[list[Fitted], Lines] | None = None  # of what, the lines

    def own(self, x: Tensor) -> Tensor:
        """The groups of x that have functions, ``[..., functions, size]``."""
        return x.unflatten(-1, (self.parts, -1))[..., : len(self.functions), :]

    def lines(self, device: torch.device) -> Lines | None:
        """All of them in real numbers, there; None unless all are piecewise linear."""
        fitted = [own for f in self.functions if (own := f.fitted(device)) is not None]
        if len(fitted) < len(self.functions):
            return None
        if self._joined is None or any(a is not b for a, b in zip(self._joined[0], fitted, strict=True)):
            # From the tables, which a processor has: a GPU would be waited for.
            single = [lines_of(f.table)._replace(step=f.lines.step) for f in fitted]
            self._joined = fitted, side_by_side(single).to(device)
        return self._joined[1]

    def looked_up(self, grid: Grid) -> Table | None:
        """Values and slopes at every integer of the site's ``grid``; None unless all are piecewise linear."""
        lines, count = self.lines(grid.scale.device), len(self.functions)
        if lines is None:
            return None

        def own(parameter: Tensor) -> Tensor:
            return parameter.reshape(self.parts, -1)[:count, :1]

        zero_point = None if grid.zero_point is None else own(grid.zero_point)
        return self._cache(lines, Grid(own(grid.scale), zero_point, own(grid.rounding), grid.low, grid.high))
