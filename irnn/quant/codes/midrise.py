"""Uniform weights of few bits without 0: odd integers up to ``2**bits - 1`` times a scale a row (a mid-rise quantizer).

At 2 bits uniform integers around 0 are -1, 0 and 1: one of the four values is given away, and a range that holds the
largest weight of a row leaves most of the others at 0.  Here all values are used (+-1, +-3 at 2 bits), and the scale is
the one of the least squared error, found from the optimum for normal weights (Max 1960, table I) by nearest values and
best scale in turn.  What that cuts off of the largest weights counts as the error that it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from irnn.quant.codes.base import Term, WeightCode, signs, usable, zero_free

ROUNDS = 3
# Half of the step that is best for normal weights of unit variance.
NORMAL = {2: 0.9957 / 2, 3: 0.5860 / 2, 4: 0.3352 / 2}


@dataclass(frozen=True)
class Midrise(WeightCode):
    """Of ``width`` bits, one of them the sign."""

    width: int
    encoding: ClassVar[str] = "codebook"
    ROWS_EVERYWHERE: ClassVar[bool] = True
    BITS: ClassVar[tuple[int, ...]] = (2, 3, 4)

    @property
    def bits(self) -> int:
        """The width that was chosen."""
        return self.width

    def terms(self, weight: Tensor, floor: Tensor | None = None) -> tuple[Term, ...]:
        """One plane; the sign of 0 is 1, and half way between two values it is the one further from 0."""
        rows = weight.detach() if self.per_row else weight.detach().reshape(1, -1)
        size = rows.abs()
        scale = zero_free(rows.square().mean(1, keepdim=True).sqrt() * NORMAL[self.width], weight)
        for _ in range(ROUNDS):
            odd = self._nearest(size, scale)
            scale = zero_free((size * odd).sum(1, keepdim=True) / odd.square().sum(1, keepdim=True), weight)
        scale = usable(scale, floor)
        return (Term((signs(rows) * self._nearest(size, scale)).reshape(weight.shape), scale),)

    def _nearest(self, size: Tensor, scale: Tensor) -> Tensor:
        """The odd integer nearest to each magnitude."""
        return size.div(scale * 2).floor_().mul_(2).add_(1).clamp_(max=2**self.width - 1)
