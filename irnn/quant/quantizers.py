"""From float to integers: roles and bits, scales, observers, fake quantization.

Everything here is training- and set-up-time float code; what runs on the device is in ``irnn.arithmetic.fixed_point``.
Rounding is half up, ``floor(v + 1/2)``, as it is there.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from irnn.errors import IrnnError

# Bits that a role may have.  Operands of a matrix product have at most 8: int16 x int8 would overflow an int32
# accumulator above 516 terms.  Gates are 8-bit by contract: their scales are fixed.
ROLE_BITS = {
    "weight": (2, 8),
    "embedding": (2, 8),
    "logits_weight": (2, 8),
    "activation": (2, 8),
    "hidden": (2, 8),
    "preactivation": (8, 16),
    "norm": (8, 16),
    "gate": (8, 8),
    "cell": (8, 16),
}
SYMMETRIC_ROLES = ("weight", "embedding", "logits_weight", "preactivation", "norm", "cell")
OBSERVERS = ("ema", "percentile")

# A row of weights is never scaled more finely than 2**-16 of its tensor's largest: rows at or near zero exist, and a
# finer scale would push their bias and multiplier out of range for a contribution that nobody could measure.
ROW_SCALE_FLOOR = 2.0**-16
BIAS_LIMIT = 2.0**30


@dataclass(frozen=True)
class QuantConfig:
    """Bits per role (DESIGN: roles), and how ranges are observed.

    observer: "ema" = moving average of each batch's minimum and maximum (``ema_decay`` is the weight of the past);
    "percentile" = the same average of the ``percentile``-th and its mirror image, which clips outliers; it lies between
    two of a batch's sorted values, in proportion, so that it clips in a batch of any size.
    """

    weight: int = 8
    embedding: int = 8
    logits_weight: int = 8
    activation: int = 8
    hidden: int = 8
    preactivation: int = 16
    norm: int = 16
    gate: int = 8
    cell: int = 16
    observer: str = "ema"
    ema_decay: float = 0.9
    percentile: float = 99.99

    def __post_init__(self) -> None:
        for role, (low, high) in ROLE_BITS.items():
            bits = getattr(self, role)
            if not isinstance(bits, int) or not low <= bits <= high:
                raise IrnnError(
                    f"quant.{role}={bits!r}: bits of the role {role!r} must be a whole number {low} to {high}"
                )
        if self.observer not in OBSERVERS:
            raise IrnnError(f"quant.observer={self.observer!r}: allowed are {', '.join(OBSERVERS)}")
        if not 0 <= self.ema_decay < 1:
            raise IrnnError(f"quant.ema_decay={self.ema_decay}: must lie in [0, 1)")
        if not 50 < self.percentile <= 100:
            raise IrnnError(f"quant.percentile={self.percentile}: must lie in (50, 100]")

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> QuantConfig:
        """Build from a mapping and refuse unknown roles by name."""
        known = [f.name for f in fields(cls)]
        for key in values:
            if key not in known:
                raise IrnnError(f"quant.{key}: unknown role or option; allowed are {', '.join(known)}")
        return cls(**values)

    def bits(self, role: str) -> int:
        """Bits of a role; an unknown role is an error that lists the known ones."""
        if role not in ROLE_BITS:
            raise IrnnError(f"unknown role {role!r}; allowed are {', '.join(ROLE_BITS)}")
        return getattr(self, role)


def integer_range(role: str, bits: int) -> tuple[int, int]:
    """Smallest and largest integer of a role: weights are +-(2**(b-1) - 1), so 2 bits = {-1, 0, 1}."""
    high = 2 ** (bits - 1) - 1
    return (-high if role in ("weight", "embedding", "logits_weight") else -high - 1), high


def round_half_up(x: Tensor) -> Tensor:
    """``floor(x + 1/2)``."""
    return torch.floor(x + 0.5)


def weight_scale(weight: Tensor, bits: int, per_row: bool) -> Tensor:
    """Symmetric scale(s) of a weight matrix ``[rows, columns]``: ``[rows, 1]`` or ``[1, 1]``."""
    high = 2 ** (bits - 1) - 1
    largest = weight.detach().abs().amax()
    if per_row:
        rows = weight.detach().abs().amax(dim=1, keepdim=True)
        scale = torch.maximum(rows, largest * ROW_SCALE_FLOOR) / high
    else:
        scale = (largest / high).reshape(1, 1)
    return torch.where(scale > 0, scale, torch.ones_like(scale))


class FakeQuantize(torch.autograd.Function):
    """Quantize and dequantize; straight-through gradient inside the range, none outside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
        q = torch.addcdiv(zero_point + 0.5, x, scale).floor_()
        clipped = q.clamp(low, high)
        ctx.save_for_backward(q == clipped)
        return clipped.sub_(zero_point).mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None, None, None


class FakeQuantizeWeight(torch.autograd.Function):
    """The same for symmetric weights: the range holds every weight, so the gradient passes unchanged."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor, high: int) -> Tensor:
        return weight.div(scale).add_(0.5).floor_().clamp_(-high, high).mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient, None, None


class QuantSite(nn.Module):
    """One quantized tensor of the network: its role, bits, observed range and whether it is on.

    ``groups`` equal parts of the last axis (the four gates) have a scale each.  The range is a buffer, so it travels
    with checkpoints; NaN stands for none yet.  ``observing`` and ``quantizing`` are set by ``irnn.qat.prepare``
    according to the stage, and ``where``, what messages call the site.
    """

    def __init__(self, role: str, size: int, groups: int = 1) -> None:
        super().__init__()
        if role not in ROLE_BITS:
            raise IrnnError(f"unknown role {role!r}; allowed are {', '.join(ROLE_BITS)}")
        self.role = role
        self.size = size
        self.groups = groups
        self.bits = QuantConfig().bits(role)
        self.config = QuantConfig()
        self.observing = False
        self.quantizing = False
        self.where = f"a site of role {role!r}"
        self.register_buffer("observed_min", torch.full((groups,), float("nan")))
        self.register_buffer("observed_max", torch.full((groups,), float("nan")))

    def configure(self, config: QuantConfig, *, observing: bool, quantizing: bool) -> None:
        """Set bits and observer, and switch observation and quantization on or off."""
        self.config = config
        self.bits = config.bits(self.role)
        self.observing = observing
        self.quantizing = quantizing

    @property
    def calibrated(self) -> bool:
        """Whether a range has been observed; half a range, or one that is none, is an :class:`IrnnError`."""
        low, high = self.observed_min, self.observed_max
        if bool(torch.isnan(low).all() and torch.isnan(high).all()):
            return False
        if not bool((torch.isfinite(low) & torch.isfinite(high) & (low <= high)).all()):
            raise IrnnError(
                f"{self.where}: its observed range is {low.tolist()} to {high.tolist()}, which is none; calibrate again"
            )
        return True

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Let ``x [..., size]`` move the range: exponential moving average of minimum and maximum (or percentiles)."""
        rows = x.detach().float().reshape(-1, self.groups, self.size // self.groups)
        low, high = rows.amin(dim=(0, 2)), rows.amax(dim=(0, 2))
        if not bool((torch.isfinite(low) & torch.isfinite(high)).all()):
            raise IrnnError(
                f"{self.where}: {int((~torch.isfinite(rows)).sum())} of {rows.numel()} values that it observes are NaN "
                "or infinite; mend the data or the weights before it"
            )
        if self.config.observer == "percentile":
            flat = rows.transpose(0, 1).reshape(self.groups, -1)
            high, low = (sign * _percentile(sign * flat, self.config.percentile) for sign in (1, -1))
        if not self.calibrated:
            self.observed_min.copy_(low)
            self.observed_max.copy_(high)
        else:
            self.observed_min.lerp_(low, 1 - self.config.ema_decay)
            self.observed_max.lerp_(high, 1 - self.config.ema_decay)

    def range(self) -> tuple[int, int]:
        """Smallest and largest integer."""
        return integer_range(self.role, self.bits)

    def qparams(self) -> tuple[np.ndarray, np.ndarray]:
        """(scale float64 ``[groups]``, zero point int64 ``[groups]``), from the observed range, on the CPU."""
        if not self.calibrated:
            raise IrnnError(f"{self.where} has seen no data; call irnn.qat.calibrate first")
        low_q, high_q = self.range()
        # The range always holds zero, so that zero (padding, the first state) is exact.
        low = np.minimum(self.observed_min.double().cpu().numpy(), 0.0)
        high = np.maximum(self.observed_max.double().cpu().numpy(), 0.0)
        if self.role in SYMMETRIC_ROLES:
            scale = np.maximum(-low, high) / high_q
            zero_point = np.zeros(self.groups, dtype=np.int64)
        else:
            scale = (high - low) / (high_q - low_q)
            safe = np.where(scale > 0, scale, 1.0)
            zero_point = np.clip(np.floor(low_q - low / safe + 0.5), low_q, high_q).astype(np.int64)
        # A site that saw only zeros: any scale is right, one that keeps multipliers in range is useful.
        return np.where(scale > 0, scale, 1.0 / high_q), zero_point

    def simulation_parameters(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """(scale, zero point) as float tensors that broadcast over ``[..., size]``."""
        scale, zero_point = (torch.as_tensor(v, dtype=like.dtype, device=like.device) for v in self.qparams())
        if self.groups > 1:
            scale, zero_point = (v.repeat_interleave(self.size // self.groups) for v in (scale, zero_point))
        return scale, zero_point


def _percentile(rows: Tensor, percent: float) -> Tensor:
    """The percentile of each row ``[groups, count]``, between the two sorted values beside it."""
    place = (rows.shape[1] - 1) * percent / 100
    below = int(place)
    values = [rows.kthvalue(min(k, rows.shape[1] - 1) + 1, dim=1).values for k in (below, below + 1)]
    return torch.lerp(*values, place - below)


def not_finite(name: str, x: Tensor) -> str | None:
    """What is wrong with a tensor that holds NaN or infinity, in words; None where nothing is."""
    bad = ~torch.isfinite(x.detach())
    if not bool(bad.any()):
        return None
    place = [int(i) for i in bad.nonzero()[0]]
    return f"{name} holds {int(bad.sum())} numbers that are NaN or infinite, the first at {place}"
