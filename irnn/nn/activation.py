"""Functions of one number, exact or piecewise linear; modReLU."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from irnn.errors import IrnnError
from irnn.quant.fake import Grid
from irnn.quant.functions import EXACT
from irnn.quant.lines import Lines, PwlFunction, Table, TableCache, lines_of
from irnn.quant.pwl import PwlTable, fit
from irnn.quant.site import QuantSite

# (scale, zero point, smallest, largest integer) of the gates: sigmoid covers [0, 1] with 255 steps, tanh [-1, 1] with
# 2 * 127, so both ends are exact.
GATE_FORMAT = {"sigmoid": (1 / 255, -128, -128, 127), "tanh": (1 / 127, 0, -127, 127)}
# The same at 16 bits, for values that leave a network.
WIDE_FORMAT = {"sigmoid": (1 / 32767, 0, 0, 32767), "tanh": (1 / 32767, 0, -32767, 32767)}


class Fitted(NamedTuple):
    """A table, the formats that it was fitted to, and its lines in real numbers."""

    grid: tuple[float, ...]  # scale, zero point, bits of the input; scale, zero point, smallest, largest of the output
    table: PwlTable
    lines: Lines


class Activation(nn.Module):
    """A function of group ``group`` of the tensor at ``site``; exact, or piecewise-linear from stage "pwl" on.

    sigmoid and tanh have a fixed format, with ``wide`` 16 bits in place of a gate's 8.  Any other of ``EXACT`` has no
    ends of its own: its values are at the site ``output``, whose observed range is its format.
    """

    def __init__(
        self, function: str, site: QuantSite, group: int = 0, *, wide: bool = False, output: QuantSite | None = None
    ) -> None:
        super().__init__()
        allowed = GATE_FORMAT if output is None else EXACT
        if function not in allowed:
            raise IrnnError(f"unknown activation {function!r}; allowed are {', '.join(allowed)}")
        self.function = function
        self._fixed = None if output is not None else (WIDE_FORMAT if wide else GATE_FORMAT)[function]
        self._input = (site, group)  # tuples: the sites are registered where they are observed, not here
        self._output = (output,)
        self.pieces: int | None = None
        self.method = "greedy"
        self.quantizing = False
        self._fitted: Fitted | None = None
        self._cache = TableCache()

    def configure(self, pieces: int | None, method: str, *, quantizing: bool) -> None:
        """``pieces=None`` is the exact function; ``quantizing`` rounds the output to gate steps."""
        if (pieces, method) != (self.pieces, self.method):
            self._fitted = None
        self.pieces, self.method, self.quantizing = pieces, method, quantizing

    @property
    def site(self) -> QuantSite:
        """Where the input is quantized."""
        return self._input[0]

    @property
    def group(self) -> int:
        """Which group of the site the input is."""
        return self._input[1]

    @property
    def output(self) -> QuantSite | None:
        """Where the result is quantized; None: at its fixed format."""
        return self._output[0]

    @property
    def calibrated(self) -> bool:
        """Whether there are the ranges that a table is fitted to."""
        return self.site.calibrated and (self.output is None or self.output.calibrated)

    @property
    def format(self) -> tuple[float, int, int, int]:
        """(scale, zero point, smallest, largest integer) of the result."""
        if self._fixed is not None:
            return self._fixed
        (output,) = self._output
        assert output is not None  # one of the two is given
        scale, zero_point = output.qparams()
        return float(scale[0]), int(zero_point[0]), *output.range()

    def exact(self, x: Tensor) -> Tensor:
        """The function itself."""
        return EXACT[self.function](x)

    def table(self) -> PwlTable:
        """The integer table for the input's present scale (fitted again only when that has changed)."""
        return self._present().table

    def _present(self) -> Fitted:
        site, group = self._input
        scale, zero_point = (v[group].item() for v in site.qparams())
        grid = (scale, zero_point, site.bits, *self.format)
        if self._fitted is None or self._fitted.grid != grid:
            self._fitted = self._fit(grid)
        return self._fitted

    def _fit(self, grid: tuple[float, ...]) -> Fitted:
        if self.pieces is None:
            raise IrnnError(
                f"{self.site.where} is read by an exact {self.function}, which has no table: prepare the model for "
                'stage "pwl" or a later one'
            )
        scale, zero_point, bits, output_scale, output_zero_point, low, high = grid
        table = fit(
            self.function,
            scale=scale,
            zero_point=int(zero_point),
            bits=int(bits),
            output_scale=output_scale,
            output_zero_point=int(output_zero_point),
            output_min=int(low),
            output_max=int(high),
            pieces=self.pieces,
            method=self.method,
        )
        return Fitted(grid, table, lines_of(table))

    def fitted(self, device: torch.device) -> Fitted | None:
        """The table and its lines, there; None of an exact function.

        In training it is the table of the last :meth:`table` call (an epoch's start).
        """
        if self.pieces is None:
            return None
        fitted = self._present() if self._fitted is None else self._fitted
        _, _, step = self._ends()
        if fitted.lines.slopes.device != device or fitted.lines.step != step:
            self._fitted = fitted = fitted._replace(lines=fitted.lines.to(device)._replace(step=step))
        return fitted

    def _ends(self) -> tuple[float, float, float | None]:
        """The smallest and the largest value, and what they are multiples of where they are rounded."""
        if self._fixed is not None:
            grid: tuple[float, ...] = self._fixed
        else:
            assert self._fitted is not None  # whose ends are asked for
            grid = self._fitted.grid[3:]
        scale, zero_point, low, high = grid
        # What has a site of its own is rounded there.
        step = scale if self.quantizing and self._fixed is not None else None
        return (low - zero_point) * scale, (high - zero_point) * scale, step

    def lines(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Of a table, in real numbers: where pieces start, their slopes and intercepts."""
        fitted = self.fitted(device)
        assert fitted is not None  # asked of a function that has pieces
        return fitted.lines[:3]

    def piecewise(self, x: Tensor, lines: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """As :meth:`forward`, by these :meth:`lines`."""
        return PwlFunction.apply(x.float(), *lines, None, *self._ends())

    def own(self, x: Tensor) -> Tensor:
        """What of x the function is of: all of it."""
        return x

    def looked_up(self, grid: Grid) -> Table | None:
        """Values and slopes at every integer of the site's ``grid``; None of an exact function."""
        fitted = self.fitted(grid.scale.device)
        return None if fitted is None else self._cache(fitted.lines, grid)

    def forward(self, x: Tensor) -> Tensor:
        """Float simulation."""
        fitted = self.fitted(x.device)
        return self.exact(x) if fitted is None else PwlFunction.apply(x.float(), *fitted.lines)


class ModReLU(nn.Module):
    """``sgn(x) relu(|x| + b)``, b ``[size]`` drawn from +-0.01 (Arjovsky, Shah and Bengio 2016; as projUNN has it)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.where = "modReLU"  # what messages call it
        self.bias = nn.Parameter(torch.empty(size).uniform_(-0.01, 0.01))
