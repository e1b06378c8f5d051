"""DenseShift weights: signed powers of two without 0, times a scale a row (Li et al., ICCV 2023, 2208.09708).

A weight is ``sgn(s) 2**S``, S one of 0 .. n with n = 2**(bits - 1) - 1: +-1, +-2 at 2 bits, up to +-8 at 3 and +-128 at
4.  The paper learns four tensors at 3 bits: the sign's s, and t_1 .. t_n of the shift, ``S_j = (S_{j-1} + 1) H(t_j)``,
S = S_n.  Here all of them are one tensor transformed, the float weight w, so that a state_dict, an optimizer and a
pretrained float model fit as they are: ``s = w`` and ``t_j = |w| / scale - threshold``, the highest threshold first.
S then counts the thresholds that the magnitude has passed, which is the nearest code.  What one tensor gives up is that
a sign could turn at a large magnitude; in a code without 0 it turns between -1 and 1.

Forward is the code, backward its surrogate ``sgn(s) sqrt(S + 1)``, straight through sgn and H, as the paper has it.

Initialization: the paper starts with shifts of low variance, since powers of two of random ones vary wildly.  From a
float model the scale does that: it is the one of the least squared error for its row, with which the code's mean square
stays at the float weights' own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from irnn.quant.codes.base import Term, WeightCode, signs, usable, zero_free

# Of nearest codes and best scale in turn; from the largest weight's scale they settle at once, but at 2 bits.
ROUNDS = 3


@dataclass(frozen=True)
class DenseShift(WeightCode):
    """Of ``width`` bits, one of them the sign."""

    width: int
    encoding: ClassVar[str] = "codebook"
    ROWS_EVERYWHERE: ClassVar[bool] = True
    BITS: ClassVar[tuple[int, ...]] = (2, 3, 4)

    @property
    def bits(self) -> int:
        """The width that was chosen."""
        return self.width

    @property
    def largest_shift(self) -> int:
        """n: how often 1 may be doubled."""
        return 2 ** (self.width - 1) - 1

    def terms(self, weight: Tensor, floor: Tensor | None = None) -> tuple[Term, ...]:
        """One plane."""
        rows = weight.detach() if self.per_row else weight.detach().reshape(1, -1)
        size = rows.abs()
        scale = zero_free(size.amax(1, keepdim=True) / 2**self.largest_shift, weight)
        for _ in range(ROUNDS):
            powers = self._powers(size, scale)
            scale = zero_free((size * powers).sum(1, keepdim=True) / powers.square().sum(1, keepdim=True), weight)
        scale = usable(scale, floor)
        return (Term((signs(rows) * self._powers(size, scale)).reshape(weight.shape), scale),)

    def gradient(self, weight: Tensor, terms: tuple[Term, ...], gradient: Tensor) -> Tensor:
        """Times the surrogate's slope.

        Through s it is ``sqrt(S + 1)``.  Through the shift it is ``dS / (2 sqrt(S + 1))``, where dS adds up what the
        cascade passes on from all t_j: ``1 + S (S + 1) / 2``, without the 1 where every threshold has been passed.
        """
        shift = torch.log2(terms[0].integers.abs())
        passed = (shift < self.largest_shift).to(shift) + shift * (shift + 1) / 2
        root = (shift + 1).sqrt()
        return gradient * (root + passed / (2 * root))

    def _powers(self, size: Tensor, scale: Tensor) -> Tensor:
        """The power of two nearest to each magnitude; half way between two, at 3/2 of the smaller, it is the larger."""
        powers = torch.ones_like(size)
        for shift in range(self.largest_shift):
            powers.add_(size >= scale * (1.5 * 2.0**shift), alpha=2.0**shift)
        return powers
