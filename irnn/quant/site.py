"""A quantized tensor of the network: its role, its observed range, and the scale and zero point that follow."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from irnn.errors import IrnnError
from irnn.quant.config import ROLE_BITS, SYMMETRIC_ROLES, QuantConfig, integer_range
from irnn.quant.fake import Grid, grid
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
        self._range_seen = False  # whether a GPU has been asked for the range, see `_need_range`
        self.register_buffer("observed_min", torch.full((groups,), float("nan")))
        self.register_buffer("observed_max", torch.full((groups,), float("nan")))

    def configure(self, config: QuantConfig, *, observing: bool, quantizing: bool) -> None:
        """Set bits and observer, and switch observation and quantization on or off."""
        self.config = config
        self.bits = config.bits(self.role)
        self.observing = observing
        self.quantizing = quantizing
        self._range_seen = False

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
        if (
            rows.device.type == "cpu"
        ):  # a GPU would be waited for; there the loss tells, which is not a number after such values
            self._check(rows, low, high)
        if self.config.observer == "percentile":
            low, high = percentiles(rows, self.config.percentile)
        low, high = low.to(self.observed_min), high.to(self.observed_max)  # a network of float64 has such ranges
        for ends, new, wider in ((self.observed_min, low, torch.minimum), (self.observed_max, high, torch.maximum)):
            moved = wider(ends, new) if self.widening else ends.lerp(new, 1 - self.config.ema_decay)
            ends.copy_(torch.where(torch.isnan(ends), new, moved))

    def _check(self, rows: Tensor, low: Tensor, high: Tensor) -> None:
        """What is observed are numbers, and what was observed before is a range or nothing."""
        if not bool((torch.isfinite(low) & torch.isfinite(high)).all()):
            raise IrnnError(
                f"{self.where}: {int((~torch.isfinite(rows)).sum())} of {rows.numel()} values that it observes are NaN "
                "or infinite; mend the data or the weights before it"
            )
        _ = self.calibrated

    def range(self) -> tuple[int, int]:
        """Smallest and largest integer."""
        return integer_range(self.role, self.bits)

    def qparams(self) -> tuple[np.ndarray, np.ndarray]:
        """(scale float64 ``[groups]``, zero point int64 ``[groups]``), from the observed range, on the CPU."""
        self._need_range()
        scale, zero_point = self._scales()
        return scale.cpu().numpy(), zero_point.cpu().numpy().astype(np.int64)

    def simulation_parameters(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """(scale, zero point) as float tensors that broadcast over ``[..., size]``."""
        if not (self._range_seen and self.observed_min.device.type != "cpu"):
            self._need_range()
        scale, zero_point = (v.to(like) for v in self._scales())
        if self.groups > 1:
            scale, zero_point = (v.repeat_interleave(self.size // self.groups) for v in (scale, zero_point))
        return scale, zero_point

    def grid(self, like: Tensor) -> Grid:
        """The integers and what they stand for, see :meth:`simulation_parameters`."""
        scale, zero_point = self.simulation_parameters(like)
        return grid(scale, None if self.role in SYMMETRIC_ROLES else zero_point, *self.range())

    def _need_range(self) -> None:
        """An `IrnnError` where nothing has been observed.  It asks for numbers, so a GPU is waited for."""
        if not self.calibrated:
            raise IrnnError(f"{self.where} has seen no data; call irnn.qat.calibrate first")
        self._range_seen = True

    def _scales(self) -> tuple[Tensor, Tensor]:
        """(scale, zero point), float64 ``[groups]``, where the range is: a GPU computes them without being waited for.

        Every operation is exact or correctly rounded, so that all devices have the same bits.
        """
        low_q, high_q = self.range()
        # The range always holds zero, so that zero (padding, the first state) is exact.
        low = self.observed_min.double().clamp(max=0.0) * self.headroom
        high = self.observed_max.double().clamp(min=0.0) * self.headroom
        if self.role in SYMMETRIC_ROLES:
            scale = torch.maximum(-low, high) / high_q
            zero_point = torch.zeros_like(scale)
        else:
            scale = (high - low) / (high_q - low_q)
            safe = torch.where(scale > 0, scale, 1.0)
            zero_point = torch.floor(low_q - low / safe + 0.5).clamp(low_q, high_q)
        # A site that saw only zeros: any scale is right, one that keeps multipliers in range is useful.
        scale = torch.where(scale > 0, scale, 1.0 / high_q)
        return (_next_power_of_two(scale) if self.power_of_two else scale), zero_point

    def _load_from_state_dict(self, *arguments: Any) -> None:
        """The range is another one."""
        self._range_seen = False
        super()._load_from_state_dict(*arguments)


def _next_power_of_two(x: Tensor) -> Tensor:
    """The least power of two that is not below ``x > 0``, exactly."""
    fraction = torch.frexp(x).mantissa  # x = fraction * 2**exponent, fraction in [1/2, 1)
    return torch.where(fraction == 0.5, x, x / fraction)
