"""The parametrized parts of a recurrent network: linear, embedding, norm, activation.

They hold parameters and say how those are quantized; what is computed with them is the business of an executor
(``irnn.wiring.simulate`` in float for training, ``irnn.convert`` for recording the program).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from irnn.errors import IrnnError
from irnn.quant.pwl import PwlTable, fit
from irnn.quant.quantizers import QuantConfig, QuantSite

NORMS = ("layer", "mad")
# A Gaussian's mean absolute deviation is sqrt(2/pi) of its standard deviation.
MAD_OF_GAUSSIAN = math.sqrt(2 / math.pi)
# (scale, zero point, smallest, largest integer) of the gates: sigmoid covers [0, 1] with 255 steps, tanh [-1, 1] with
# 2 * 127, so both ends are exact.
GATE_FORMAT = {"sigmoid": (1 / 255, -128, -128, 127), "tanh": (1 / 127, 0, -127, 127)}


class Weight(nn.Module):
    """A float matrix ``[rows, columns]`` with a role; base of :class:`Linear` and :class:`Embedding`.

    ``weight`` is a parameter, or computed from some (a folded norm).
    """

    weight: Tensor
    bias: Tensor | None = None

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role
        self.where = f"a weight of role {role!r}"  # what messages call it
        self.bits = QuantConfig().bits(role)
        self.quantizing = False

    def configure(self, config: QuantConfig, *, quantizing: bool) -> None:
        """Set the bits and switch quantization on or off."""
        self.bits = config.bits(self.role)
        self.quantizing = quantizing

    @property
    def per_row(self) -> bool:
        """One scale a row; embedding and output layer have one per tensor, so that logits are comparable."""
        return self.role == "weight"

    @property
    def key(self) -> int:
        """Identity of the weight: modules that share one (tied weights) quantize and store it once."""
        return id(self.weight)


class Linear(Weight):
    """``y = W x + b`` with W ``[rows, columns]``.  ``biases`` are added up: torch's LSTM has two.

    ``recurrent``: x is the state, so that every step's product depends on the first one's; it has no bias.
    """

    def __init__(
        self,
        weight: nn.Parameter,
        biases: tuple[nn.Parameter, ...] = (),
        role: str = "weight",
        recurrent: bool = False,
    ) -> None:
        super().__init__(role)
        self.weight = weight
        if recurrent and biases:
            raise IrnnError("a recurrent product has no bias: it stands with the input product")
        self.recurrent = recurrent
        for k, bias in enumerate(biases):
            self.register_parameter(f"bias_{k}", bias)
        self.bias_count = len(biases)

    @property
    def bias(self) -> Tensor | None:
        """Sum of the biases ``[rows]``, or None."""
        if not self.bias_count:
            return None
        total = self.bias_0
        for k in range(1, self.bias_count):
            total = total + getattr(self, f"bias_{k}")
        return total


class Embedding(Weight):
    """A table ``[vocabulary, size]`` whose rows are looked up."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__("embedding")
        self.weight = weight


class Norm(nn.Module):
    """LayerNorm or MadNorm over each of ``groups`` equal parts of the last axis, with scale ``weight`` and ``bias``.

    MadNorm (iRNN, section on normalization): mean absolute deviation instead of standard deviation.  :meth:`become_mad`
    turns a trained LayerNorm into one: the weight takes a Gaussian's ratio of the two, fine-tuning does the rest.
    """

    EPSILON = 1e-5  # float forms only; the integer forms map a constant row to beta

    def __init__(self, kind: str, size: int, groups: int = 1, initial: float = 1.0) -> None:
        super().__init__()
        if kind not in NORMS:
            raise IrnnError(f"unknown norm {kind!r}; allowed are {', '.join(NORMS)} and null")
        self.where = f"a {kind} norm"  # what messages call it
        self.target_kind = kind
        self.kind = "layer"
        self.size = size
        self.groups = groups
        self.weight = nn.Parameter(torch.full((size,), initial))
        self.bias = nn.Parameter(torch.zeros(size))

    @torch.no_grad()
    def become_mad(self) -> None:
        """Turn a LayerNorm into the MadNorm that is its equal on Gaussian data; a MadNorm stays as it is."""
        if self.kind == "layer":
            self.weight.mul_(MAD_OF_GAUSSIAN)
            self.kind = "mad"

    def forward(self, x: Tensor) -> Tensor:
        """Float forward, ``[..., size]`` -> ``[..., size]``."""
        rows = x.reshape(*x.shape[:-1], self.groups, self.size // self.groups)
        if self.kind == "layer":
            y = nn.functional.layer_norm(rows, rows.shape[-1:], eps=self.EPSILON)
        else:
            centred = rows - rows.mean(-1, keepdim=True)
            y = centred / (centred.abs().mean(-1, keepdim=True) + self.EPSILON)
        return y.reshape(x.shape) * self.weight + self.bias


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
        self._fitted: tuple[float, int] | None = None
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
        scale = float(site.qparams()[0][group])
        if self._fitted != (scale, site.bits):
            output_scale, output_zero_point, low, high = GATE_FORMAT[self.function]
            self._table = fit(
                self.function,
                scale=scale,
                zero_point=0,
                bits=site.bits,
                output_scale=output_scale,
                output_zero_point=output_zero_point,
                output_min=low,
                output_max=high,
                pieces=self.pieces,
                method=self.method,
            )
            self._fitted = (scale, site.bits)
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
