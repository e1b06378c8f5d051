"""Weights that are 0 or a power of two times the row's scale: -4, -2, -1, 0, 1, 2, 4, stored in 4 bits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from irnn.quant.codes.base import ROW_SCALE_FLOOR, Term, WeightCode, usable

LARGEST = 4


@dataclass(frozen=True)
class PowersOfTwo(WeightCode):
    """The largest weight of a row is 4; the others go to the nearest of the seven."""

    @property
    def bits(self) -> int:
        """As they are stored."""
        return 4

    def terms(self, weight: Tensor, floor: Tensor | None = None) -> tuple[Term, ...]:
        """One plane."""
        size = weight.detach().abs()
        largest = size.amax(1, keepdim=True) if self.per_row else size.amax().reshape(1, 1)
        scale = usable(torch.maximum(largest, size.amax() * ROW_SCALE_FLOOR) / LARGEST, floor)
        q = size / scale
        steps = (q >= 0.5).to(q) + (q >= 1.5).to(q) + 2 * (q >= 3).to(q)
        return (Term(weight.detach().sign() * steps, scale),)
