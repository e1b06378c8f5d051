"""What a weight code is: a float matrix as a sum of integer planes, in training and in the program by one text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

# A row of weights is never scaled more finely than 2**-16 of its tensor's largest: rows at or near zero exist, and a
# finer scale would push their bias and multiplier out of range for a contribution that nobody could measure.
ROW_SCALE_FLOOR = 2.0**-16


class Term(NamedTuple):
    """One plane as real numbers: integers ``[rows, columns]`` in the weight's own dtype, scale ``[rows or 1, 1]``."""

    integers: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Plane:
    """One plane as the program stores it: ``scale[row] * integers[row]``, integers int8, scale float64 ``[rows or 1]``.

    encoding: how the integers are packed and which range they have (``irnn.program.encodings``); "": as format version
    1 packs integers of ``bits`` bits.
    """

    integers: np.ndarray
    encoding: str
    bits: int
    scale: np.ndarray


@dataclass(frozen=True)
class WeightCode(ABC):
    """How a matrix of weights becomes integers: ``W = sum_k scale_k[row] * W_k``.

    per_row: each plane has a scale a row, or one for the matrix.  Codes are equal where they quantize alike.
    """

    per_row: bool
    encoding: ClassVar[str] = ""

    @property
    @abstractmethod
    def bits(self) -> int:
        """Width of a plane's integers."""

    @abstractmethod
    def terms(self, weight: Tensor, floor: Tensor | None = None) -> tuple[Term, ...]:
        """The planes of ``weight [rows, columns]``, in its own dtype; no gradient.

        floor: smallest scale of each row ``[rows, 1]``, so that the row's bias fits an accumulator.
        """

    def fake(self, weight: Tensor) -> Tensor:
        """What training sees: the planes' sum, in the weight's dtype; the gradient passes unchanged."""
        with torch.no_grad():
            first, *others = (integers * scale for integers, scale in self.terms(weight))
            total = sum(others, first)
        return _StraightThrough.apply(weight, total)

    def encode(self, weight: np.ndarray, floor: np.ndarray | None = None) -> tuple[Plane, ...]:
        """What the program holds, of float64 ``weight [rows, columns]``; ``floor [rows]`` as in :meth:`terms`."""
        least = None if floor is None else torch.from_numpy(floor)[:, None]
        return tuple(
            Plane(integers.numpy().astype(np.int8), self.encoding, self.bits, scale[:, 0].numpy())
            for integers, scale in self.terms(torch.from_numpy(weight), least)
        )


def usable(scale: Tensor, floor: Tensor | None) -> Tensor:
    """Scales of which none is 0 (of a tensor of zeros; any is right) or below ``floor``."""
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return scale if floor is None else torch.maximum(scale, floor)


class _StraightThrough(torch.autograd.Function):
    """Another value for the same gradient."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, value: Tensor) -> Tensor:
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
