"""A quantized tensor of the network: its role, its observed range, and the scale and zero point that follow."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from irnn.errors import IrnnError
from irnn.quant.config import ROLE_BITS, SYMMETRIC_ROLES, QuantConfig, integer_range
from irnn.quant.observers import percentiles


class QuantSite(nn.Module):
    """One quantized tensor of the network: its role, bits, observed range and whether it is on.

    ``groups`` equal parts of the last axis (the four gates) have a scale each, with ``power_of_two`` the least power of
    two that holds the observed range, so that a scale is a shift (QORNN's state).  The range is a buffer, so it travels
    with checkpoints; NaN stands for none yet.  ``observing`` and ``quantizing`` are set by ``irnn.qat.prepare``
    according to the stage, and ``where``, what messages call the site.  ``headroom``: how many times the observed range
    the integers hold; ``widening``: observation takes the extremes of all, in place of a moving average.
    """

    observed_min: Tensor
    observed_max: Tensor

    def __init__(
        self, role: str, size: int, groups: int = 1, headroom: float = 1.0, *, power_of_two: bool = False
    ) -> None:
        super().__init__()
        if role not in ROLE_BITS:
            raise IrnnError(f"unknown role {role!r}; allowed are {', '.join(ROLE_BITS)}")
        if power_of_two and role not in SYMMETRIC_ROLES:
            raise IrnnError(f"the role {role!r} has a zero point, which a power of two alone does not give")
        self.role = role
        self.size = size
        self.groups = groups
        self.headroom = headroom
        self.widening = False
        self.power_of_two = power_of_two
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
            low, high = percentiles(rows, self.config.percentile)
        if not self.calibrated:
            self.observed_min.copy_(low)
            self.observed_max.copy_(high)
        elif self.widening:
            self.observed_min.copy_(torch.minimum(self.observed_min, low))
            self.observed_max.copy_(torch.maximum(self.observed_max, high))
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
        low = np.minimum(self.observed_min.double().cpu().numpy(), 0.0) * self.headroom
        high = np.maximum(self.observed_max.double().cpu().numpy(), 0.0) * self.headroom
        if self.role in SYMMETRIC_ROLES:
            scale = np.maximum(-low, high) / high_q
            zero_point = np.zeros(self.groups, dtype=np.int64)
        else:
            scale = (high - low) / (high_q - low_q)
            safe = np.where(scale > 0, scale, 1.0)
            zero_point = np.clip(np.floor(low_q - low / safe + 0.5), low_q, high_q).astype(np.int64)
        # A site that saw only zeros: any scale is right, one that keeps multipliers in range is useful.
        scale = np.where(scale > 0, scale, 1.0 / high_q)
        return (_next_power_of_two(scale) if self.power_of_two else scale), zero_point

    def simulation_parameters(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """(scale, zero point) as float tensors that broadcast over ``[..., size]``."""
        scale, zero_point = (torch.as_tensor(v, dtype=like.dtype, device=like.device) for v in self.qparams())
        if self.groups > 1:
            scale, zero_point = (v.repeat_interleave(self.size // self.groups) for v in (scale, zero_point))
        return scale, zero_point


def _next_power_of_two(x: np.ndarray) -> np.ndarray:
    """The least power of two that is not below ``x > 0``, exactly."""
    fraction, exponent = np.frexp(x)  # x = fraction * 2**exponent, fraction in [1/2, 1)
    return np.ldexp(1.0, np.where(fraction == 0.5, exponent - 1, exponent))
