"""Uniform weights of 2 to 8 bits: symmetric integers up to ``2**(bits - 1) - 1``, one scale a row or for the matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from irnn.quant.codes.base import ROW_SCALE_FLOOR, Term, WeightCode, usable


@dataclass(frozen=True)
class Uniform(WeightCode):
    """The range holds every weight, so that the largest of a row is the largest integer."""

    width: int
    BITS: ClassVar[tuple[int, ...]] = (2, 3, 4, 5, 6, 7, 8)

    @property
    def bits(self) -> int:
        """The width that was chosen."""
        return self.width

    def terms(self, weight: Tensor, floor: Tensor | None = None) -> tuple[Term, ...]:
        """One plane, rounded half up."""
        high = 2 ** (self.width - 1) - 1
        largest = weight.detach().abs().amax()
        if self.per_row:
            rows = weight.detach().abs().amax(dim=1, keepdim=True)
            scale = torch.maximum(rows, largest * ROW_SCALE_FLOOR) / high
        else:
            scale = (largest / high).reshape(1, 1)
        scale = usable(scale, floor)
        return (Term(weight.div(scale).add_(0.5).floor_().clamp_(-high, high), scale),)
