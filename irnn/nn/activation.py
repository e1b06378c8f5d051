"""sigmoid and tanh, exact or piecewise linear."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from irnn.errors import IrnnError
from irnn.quant.pwl import PwlTable, fit
from irnn.quant.site import QuantSite

# (scale, zero point, smallest, largest integer) of the gates: sigmoid covers [0, 1] with 255 steps, tanh [-1, 1] with
# 2 * 127, so both ends are exact.
GATE_FORMAT = {"sigmoid": (1 / 255, -128, -128, 127), "tanh": (1 / 127, 0, -127, 127)}


class PwlFunction(torch.autograd.Function):
    """Piecewise-linear function on real numbers, rounded to gate steps if asked; its gradient is the piece's slope."""

    @staticmethod
    def forward(
        ctx: object, x: Tensor, knots: Tensor, slopes: Tensor, intercepts: Tensor, low: float, high: float, step: float
    ) -> Tensor:
        piece = torch.bucketize(x.contiguous(), knots, right=True).sub_(1).clamp_(min=0)
        slope = slopes[piece]
        y = torch.addcmul(intercepts[piece], slope, x)
        clipped = y.clamp(low, high)
        ctx.save_for_backward(slope.mul_(y == clipped))
        # Gate ranges are whole steps, so rounding cannot leave them.
        return clipped.div_(step).add_(0.5).floor_().mul_(step) if step else clipped

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None, None, None, None, None, None]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None, None, None, None, None, None


class Activation(nn.Module):
    """sigmoid or tanh of group ``group`` of the tensor at ``site``; exact, or piecewise-linear from stage "pwl" on."""

    def __init__(self, function: str, site: QuantSite, group: int = 0) -> None:
        super().__init__()
        if function not in GATE_FORMAT:
            raise IrnnError(f"unknown activation {function!r}; allowed are {', '.join(GATE_FORMAT)}")
        self.function = function
        self._input = (site, group)  # a tuple: the site is registered where it is observed, not here
        self.pieces: int | None = None
        self.method = "greedy"
        self.quantizing = False
        self._fitted: tuple[float, int, int] | None = None
        self._table: PwlTable | None = None
        self._real: tuple[Tensor, Tensor, Tensor] | None = None

    def configure(self, pieces: int | None, method: str, *, quantizing: bool) -> None:
        """``pieces=None`` is the exact function; ``quantizing`` rounds the output to gate steps."""
        if (pieces, method) != (self.pieces, self.method):
            self._fitted = self._table = self._real = None
        self.pieces, self.method, self.quantizing = pieces, method, quantizing

    @property
    def site(self) -> QuantSite:
        """Where the input is quantized."""
        return self._input[0]

    def table(self) -> PwlTable:
        """The integer table for the input's present scale (fitted again only when that has changed)."""
        site, group = self._input
        scale, zero_point = (v[group].item() for v in site.qparams())
        if self._fitted != (scale, zero_point, site.bits):
            output_scale, output_zero_point, low, high = GATE_FORMAT[self.function]
            self._table = fit(
                self.function,
                scale=scale,
                zero_point=zero_point,
                bits=site.bits,
                output_scale=output_scale,
                output_zero_point=output_zero_point,
                output_min=low,
                output_max=high,
                pieces=self.pieces,
                method=self.method,
            )
            self._fitted = (scale, zero_point, site.bits)
            knots, slopes = self._table.real_knots, self._table.real_slopes
            intercepts = self._table.real_values - slopes * knots
            self._real = tuple(torch.as_tensor(v, dtype=torch.float32) for v in (knots, slopes, intercepts))
        return self._table

    def forward(self, x: Tensor) -> Tensor:
        """Float simulation; in training the table is the one of the last :meth:`table` call (an epoch's start)."""
        if self.pieces is None:
            return torch.sigmoid(x) if self.function == "sigmoid" else torch.tanh(x)
        if self._real is None:
            self.table()
        if self._real[0].device != x.device:
            self._real = tuple(v.to(x.device) for v in self._real)
        scale, zero_point, low, high = GATE_FORMAT[self.function]
        knots, slopes, intercepts = self._real
        step = scale if self.quantizing else 0.0
        return PwlFunction.apply(
            x.float(), knots, slopes, intercepts, (low - zero_point) * scale, (high - zero_point) * scale, step
        )
