"""Ternary weights: -1, 0 and 1 times a scale of each row's own.

Which weights are not 0 is decided by a threshold on their magnitude; the scale is the mean magnitude of those, which is
the best one for any threshold.  Two thresholds: 0.7 of the row's mean magnitude (Li, Zhang and Liu 2016, Ternary Weight
Networks, their approximation for normal and uniform weights), or the one of the least squared error, found exactly.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from irnn.quant.codes.base import ROW_SCALE_FLOOR, Term, WeightCode, usable

THRESHOLD = 0.7


@dataclass(frozen=True)
class Ternary(WeightCode):
    """What both thresholds share."""

    encoding: ClassVar[str] = "ternary"

    @property
    def bits(self) -> int:
        """As they are stored."""
        return 2

    @abstractmethod
    def kept(self, size: Tensor) -> Tensor:
        """bool ``[rows, columns]``: which magnitudes are not 0; at least one of a row that has any."""

    def terms(self, weight: Tensor, floor: Tensor | None = None) -> tuple[Term, ...]:
        """One plane.  A row whose scale a bias or a far larger row raises is rounded to it."""
        rows = weight.detach() if self.per_row else weight.detach().reshape(1, -1)
        size = rows.abs()
        kept = self.kept(size) & (size > 0)
        own = torch.where(kept, size, 0).sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp(min=1)
        scale = usable(torch.maximum(own, size.amax() * ROW_SCALE_FLOOR), floor)
        kept = torch.where(scale > own, size >= scale / 2, kept)
        return (Term((rows.sign() * kept).reshape(weight.shape), scale),)


@dataclass(frozen=True)
class MeanTernary(Ternary):
    """0.7 of the mean magnitude."""

    def kept(self, size: Tensor) -> Tensor:
        """See :class:`Ternary`."""
        return size > THRESHOLD * size.mean(1, keepdim=True)


@dataclass(frozen=True)
class LeastSquaresTernary(Ternary):
    """The error of keeping the k largest is ``|w|^2 - (sum of the k largest)^2 / k``: the best k is looked up."""

    def kept(self, size: Tensor) -> Tensor:
        """See :class:`Ternary`."""
        ordered = size.sort(dim=1, descending=True).values
        count = torch.arange(1, size.shape[1] + 1, device=size.device)
        best = (ordered.cumsum(1).square() / count).argmax(1, keepdim=True)
        return size >= ordered.gather(1, best)
