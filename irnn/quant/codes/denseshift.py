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

import torch
from torch import Tensor

from irnn.quant.codes.base import Term
from irnn.quant.codes.magnitudes import SignedMagnitudes


@dataclass(frozen=True)
class DenseShift(SignedMagnitudes):
    """Powers of two."""

    @property
    def largest_shift(self) -> int:
        """n: how often 1 may be doubled."""
        return 2 ** (self.width - 1) - 1

    def first_scale(self, size: Tensor) -> Tensor:
        """The largest weight's, from which the fit settles at once, but at 2 bits."""
        return size.amax(1, keepdim=True) / 2**self.largest_shift

    def gradient(self, weight: Tensor, terms: tuple[Term, ...], gradient: Tensor) -> Tensor:
        """Times the surrogate's slope.

        Through s it is ``sqrt(S + 1)``.  Through the shift it is ``dS / (2 sqrt(S + 1))``, where dS adds up what the
        cascade passes on from all t_j: ``1 + S (S + 1) / 2``, without the 1 where every threshold has been passed.
        """
        shift = torch.log2(terms[0].integers.abs())
        passed = (shift < self.largest_shift).to(shift) + shift * (shift + 1) / 2
        root = (shift + 1).sqrt()
        return gradient * (root + passed / (2 * root))

    def nearest(self, size: Tensor, scale: Tensor) -> Tensor:
        """See :class:`SignedMagnitudes`; half way between two lies at 3/2 of the smaller."""
        powers = torch.ones_like(size)
        for shift in range(self.largest_shift):
            powers.add_(size >= scale * (1.5 * 2.0**shift), alpha=2.0**shift)
        return powers
