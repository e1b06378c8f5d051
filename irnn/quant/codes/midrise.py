"""Uniform weights of few bits without 0: odd integers up to ``2**bits - 1`` times a scale a row (a mid-rise quantizer).

At 2 bits uniform integers around 0 are -1, 0 and 1: one of the four values is given away, and a range that holds the
largest weight of a row leaves most of the others at 0.  Here all values are used (+-1, +-3 at 2 bits), and the scale is
the one of the least squared error, found from the optimum for normal weights (Max 1960, table I) by nearest values and
best scale in turn.  What that cuts off of the largest weights counts as the error that it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from irnn.quant.codes.magnitudes import SignedMagnitudes

# Half of the step that is best for normal weights of unit variance.
NORMAL = {2: 0.9957 / 2, 3: 0.5860 / 2, 4: 0.3352 / 2}


@dataclass(frozen=True)
class Midrise(SignedMagnitudes):
    """Odd integers."""

    def first_scale(self, size: Tensor) -> Tensor:
        """The optimum for normal weights of the row's mean square."""
        return size.square().mean(1, keepdim=True).sqrt() * NORMAL[self.width]

    def nearest(self, size: Tensor, scale: Tensor) -> Tensor:
        """See :class:`SignedMagnitudes`."""
        return size.div(scale * 2).floor_().mul_(2).add_(1).clamp_(max=2**self.width - 1)
