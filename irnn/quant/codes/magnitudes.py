"""Codes of a sign and a magnitude that is never 0, at the scale of the least squared error for each row."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from irnn.quant.codes.base import (
    FIT_ROUNDS,
    Term,
    WeightCode,
    blocks,
    joined,
    least_scale,
    least_squares_scale,
    signs,
    usable,
)


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
        rows, least = weight.detach() if self.per_row else weight.detach().reshape(1, -1), least_scale(weight)
        integers, scale = joined(self._fitted(part, least, low) for part, low in blocks(rows, floor))
        return (Term(integers.reshape(weight.shape), scale),)

    def _fitted(self, rows: Tensor, least: Tensor, floor: Tensor | None) -> Term:
        """The plane of some rows; least: the smallest scale that one may have."""
        size = rows.abs()
        scale = self.first_scale(size).clamp(min=least)
        for _ in range(FIT_ROUNDS):
            scale = least_squares_scale(size, self.nearest(size, scale)).clamp(min=least)
        scale = usable(scale, floor)
        return Term(signs(rows) * self.nearest(size, scale), scale)
