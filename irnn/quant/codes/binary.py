"""Binary weights: the sign times the mean magnitude of the row, which is the scale of the least squared error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from irnn.quant.codes.base import Term, WeightCode, least_scale, signs, usable


@dataclass(frozen=True)
class Binary(WeightCode):
    """Courbariaux et al. 2015 with the scale of Rastegari et al. 2016; the sign of 0 is 1."""

    encoding: ClassVar[str] = "binary"

    @property
    def bits(self) -> int:
        """As they are stored."""
        return 1

    def terms(self, weight: Tensor, floor: Tensor | None = None) -> tuple[Term, ...]:
        """One plane."""
        rows = weight.detach() if self.per_row else weight.detach().reshape(1, -1)
        scale = usable(rows.abs().mean(1, keepdim=True).clamp(min=least_scale(weight)), floor)
        return (Term(signs(weight.detach()), scale),)
