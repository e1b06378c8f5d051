"""Two's complement in full: integers -2**(k-1) .. 2**(k-1) - 1 times alpha / 2**(k-1), alpha the largest magnitude.

QORNN's quantizer (Foucault, Mamalet and Malgouyres 2024, 2402.04012): one alpha a matrix, so that its quantized form
stays near what the matrix is, orthogonal.  The largest weight, where it is positive, is clipped by one step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from irnn.quant.codes.base import Term, WeightCode, usable


@dataclass(frozen=True)
class FullRange(WeightCode):
    """One scale for the matrix, whatever ``per_row`` asks for."""

    width: int
    encoding: ClassVar[str] = "codebook"  # the only one that has -2**(k-1)
    BITS: ClassVar[tuple[int, ...]] = (2, 3, 4, 5, 6, 7, 8)

    def __post_init__(self) -> None:
        object.__setattr__(self, "per_row", False)

    @property
    def bits(self) -> int:
        """The width that was chosen."""
        return self.width

    def terms(self, weight: Tensor, floor: Tensor | None = None) -> tuple[Term, ...]:
        """One plane, rounded half up."""
        half = 2 ** (self.width - 1)
        least = None if floor is None else floor.amax().reshape(1, 1)
        scale = usable((weight.detach().abs().amax() / half).reshape(1, 1), least)
        return (Term((weight.detach() / scale + 0.5).floor_().clamp_(-half, half - 1), scale),)
