"""Uniform weights of 2 to 8 bits: symmetric integers up to ``2**(bits - 1) - 1``, one scale a row or for the matrix.

From 5 bits on the range holds every weight, so that the largest of a row is the largest integer.  With 2 to 4 bits that
would leave most weights at 0 for the sake of a few: there the scale is the one of the least squared error, found from
the optimum for normal weights (Max 1960, table II, odd numbers of values) by nearest values and best scale in turn, and
embedding and output layer have a scale a row as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from irnn.quant.codes.base import (
    FIT_ROUNDS,
    ROW_SCALE_FLOOR,
    Term,
    WeightCode,
    blocks,
    joined,
    largest_magnitude,
    least_squares_scale,
    usable,
)

# The step that is best for normal weights of unit variance, by bits.
NORMAL = {2: 1.2241, 3: 0.6507, 4: 0.3533}
LEAST_SQUARES_BITS = tuple(NORMAL)


@dataclass(frozen=True)
class Uniform(WeightCode):
    """See the text above."""

    width: int
    BITS: ClassVar[tuple[int, ...]] = (2, 3, 4, 5, 6, 7, 8)

    @classmethod
    def rows_everywhere(cls, width: int | None) -> bool:
        """See :class:`WeightCode`."""
        return width in LEAST_SQUARES_BITS

    @property
    def bits(self) -> int:
        """The width that was chosen."""
        return self.width

    @property
    def high(self) -> int:
        """The largest integer."""
        return int(2 ** (self.width - 1)) - 1

    def terms(self, weight: Tensor, floor: Tensor | None = None) -> tuple[Term, ...]:
        """One plane, rounded half up."""
        weight = weight.detach()
        least = largest_magnitude(weight) * ROW_SCALE_FLOOR / self.high
        if self.per_row:
            return (joined(self._fitted(part, least, low) for part, low in blocks(weight, floor)),)
        integers, scale = self._fitted(weight.reshape(1, -1), least, floor)
        return (Term(integers.reshape(weight.shape), scale),)

    def _fitted(self, rows: Tensor, least: Tensor, floor: Tensor | None) -> Term:
        """The plane of some rows; least: the smallest scale that one may have."""
        size = rows.abs()
        if self.width in LEAST_SQUARES_BITS:
            scale = size.square().mean(1, keepdim=True).sqrt() * NORMAL[self.width]
            for _ in range(FIT_ROUNDS):
                scale = usable(scale, None)
                scale = least_squares_scale(size, size.div(scale).add_(0.5).floor_().clamp_(max=self.high))
        else:
            scale = size.amax(dim=1, keepdim=True) / self.high
        scale = usable(torch.maximum(scale, least), floor)
        return Term(rows.div(scale).add_(0.5).floor_().clamp_(-self.high, self.high), scale)
