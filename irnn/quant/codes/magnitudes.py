"""Codes of a sign and a magnitude that is never 0, at the scale of the least squared error for each row."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from irnn.quant.codes.base import FIT_ROUNDS, Term, WeightCode, least_squares_scale, signs, usable, zero_free


@dataclass(frozen=True)
class SignedMagnitudes(WeightCode):
    """Of ``width`` bits, one of them the sign; all values that the width has are used."""

    width: int
    encoding: ClassVar[str] = "codebook"
    BITS: ClassVar[tuple[int, ...]] = (2, 3, 4)

    @property
    def bits(self) -> int:
        """The width that was chosen."""
        return self.width

    @abstractmethod
    def first_scale(self, size: Tensor) -> Tensor:
        """``[rows, 1]`` for the magnitudes ``size [rows, columns]`` of the weights: where the fit begins."""

    @abstractmethod
    def nearest(self, size: Tensor, scale: Tensor) -> Tensor:
        """The code's magnitude nearest to each of ``size / scale``; of two equally near it is the larger."""

    def terms(self, weight: Tensor, floor: Tensor | None = None) -> tuple[Term, ...]:
        """One plane; the sign of 0 is 1."""
        rows = weight.detach() if self.per_row else weight.detach().reshape(1, -1)
        size = rows.abs()
        scale = zero_free(self.first_scale(size), weight)
        for _ in range(FIT_ROUNDS):
            scale = zero_free(least_squares_scale(size, self.nearest(size, scale)), weight)
        scale = usable(scale, floor)
        return (Term((signs(rows) * self.nearest(size, scale)).reshape(weight.shape), scale),)
