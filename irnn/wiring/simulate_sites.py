"""Quantization within one pass of a simulation: what a site has found out once serves all steps."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from irnn.quant.fake import FakeQuantize, Grid
from irnn.quant.lines import LookUp, Table
from irnn.quant.site import QuantSite
from irnn.wiring.parts import ActivationPart, GatesPart

# A table of all integers is worth while where a pass looks up as many elements as it has entries, or more.
TABLE_WORTH = 1


class _Quantized(NamedTuple):
    """What a site has made of ``given``: the value and its integers."""

    site: QuantSite
    given: Tensor
    value: Tensor
    integers: Tensor


class SimulatedSites:
    """Grids and tables of one pass.  ``steps``: how often what is computed now will be, in this pass."""

    def __init__(self) -> None:
        self.steps = 1
        self._grids: dict[QuantSite, Grid] = {}
        self._tables: dict[ActivationPart | GatesPart, Table | None] = {}
        self._last: _Quantized | None = None

    def grid(self, site: QuantSite) -> Grid:
        """Scales and ends of this pass, float32."""
        if site not in self._grids:
            self._grids[site] = site.grid(torch.empty(0, device=site.observed_min.device))
        return self._grids[site]

    def quantize(self, site: QuantSite, x: Tensor) -> Tensor:
        """x at the site."""
        last = self._last
        if last is not None and last.given is x and last.site is site:  # a GRU's h, which two steps read
            return last.value
        kept: list[Tensor] = []
        value = FakeQuantize.apply(x.float(), *self.grid(site), kept)
        self._last = _Quantized(site, x, value, kept[0])
        return value

    def looked_up(self, part: ActivationPart | GatesPart, x: Tensor) -> Tensor | None:
        """The functions of x by a table of all its integers; None where that is not known or not worth while.

        Of gates: ``[..., functions, size]``.
        """
        last = self._last
        if last is None or last.value is not x or last.site is not part.site:
            return None
        low, high = part.site.range()
        if self.steps * x.numel() < TABLE_WORTH * (high - low) * part.site.groups:
            return None
        if part not in self._tables:
            self._tables[part] = part.looked_up(self.grid(part.site))
        table = self._tables[part]
        return None if table is None else LookUp.apply(part.own(x), part.own(last.integers), table)


def extremes(x: Tensor, valid: Tensor) -> Tensor:
    """``[2, ...]``: the smallest and the largest of ``x [*valid.shape, ...]`` where ``valid``, of each place behind."""
    shape = (-1, *x.shape[valid.dim() :])
    rows, mask = x.reshape(shape), valid.reshape(-1, *[1] * (len(shape) - 1))
    lowest, highest = (torch.where(mask, rows, fill) for fill in (math.inf, -math.inf))
    return torch.stack([lowest.amin(0), highest.amax(0)])
