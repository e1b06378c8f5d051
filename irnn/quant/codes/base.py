"""What a weight code is: a float matrix as a sum of integer planes, in training and in the program by one text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from irnn.program import encodings

# A row of weights is never scaled more finely than 2**-16 of its tensor's largest: rows at or near zero exist, and a
# finer scale would push their bias and multiplier out of range for a contribution that nobody could measure.
ROW_SCALE_FLOOR = 2.0**-16
# A looked-up row whose table has a scale a row is brought to 8 bits, at which the table's largest weight is this.
TABLE_HIGH = 127
# Of nearest integers and the scale of least squares in turn, where a code finds its scale so.
FIT_ROUNDS = 3
# The scale of a tensor of zeros in a code that has no 0.
ZERO_SCALE = 2.0**-24
# A fit passes over a matrix some thirty times: on a CPU so many numbers at a time, which stay in its cache.
IN_CACHE = 1 << 17


class Term(NamedTuple):
    """One plane as real numbers: integers ``[rows, columns]`` in the weight's own dtype, scale ``[rows or 1, 1]``."""

    integers: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Plane:
    """One plane as the program stores it: ``scale[row] * integers[row]``, scale float64 ``[rows or 1]``.

    encoding: how the integers are packed, which range and which dtype they have (``irnn.program.encodings``); "": int8,
    as format version 1 packs integers of ``bits`` bits.
    """

    integers: np.ndarray
    encoding: str
    bits: int
    scale: np.ndarray


@dataclass(frozen=True)
class WeightCode(ABC):
    """How a matrix of weights becomes integers: ``W = sum_k scale_k[row] * W_k``.

    per_row: each plane has a scale a row, or one for the matrix.  Codes are equal where they quantize alike.

    RUN_TIME: the name of the code in which activations are then written as the network runs (operation ``multibit``).
    BITS: the widths that can be chosen, of which one is the constructor's second argument; none: there is one alone.
    """

    per_row: bool
    encoding: ClassVar[str] = ""
    BITS: ClassVar[tuple[int, ...]] = ()
    RUN_TIME: ClassVar[str | None] = None

    @classmethod
    def rows_everywhere(cls, width: int | None) -> bool:
        """Whether embedding and output layer have a scale a row, too: where one for a whole vocabulary would not do.

        width: the one of ``BITS`` that was chosen, or None where there is no choice.
        """
        return True

    @property
    @abstractmethod
    def bits(self) -> int:
        """Width of a plane's integers."""

    @property
    def planes(self) -> int:
        """How many planes there are."""
        return 1

    @abstractmethod
    def terms(self, weight: Tensor, floor: Tensor | None = None) -> tuple[Term, ...]:
        """The planes of ``weight [rows, columns]``, in its own dtype; no gradient.

        floor: smallest scale of each row ``[rows, 1]`` in the first plane, whose accumulator holds the row's bias.
        """

    def seen(self, weight: Tensor) -> tuple[Tensor, tuple[Term, ...]]:
        """(the planes' sum, what :meth:`gradient` needs of them)."""
        terms = self.terms(weight)
        first, *others = (integers * scale for integers, scale in terms)
        return sum(others, first), terms

    def fake(self, weight: Tensor) -> Tensor:
        """What training sees: the planes' sum, in the weight's dtype; its gradient is that of :meth:`gradient`."""
        return _Fake.apply(weight, self)

    def gradient(self, weight: Tensor, terms: tuple[Term, ...], gradient: Tensor) -> Tensor:
        """What reaches the weight of the gradient of its planes' sum: all of it, straight through the rounding."""
        return gradient

    def encode(self, weight: np.ndarray, floor: np.ndarray | None = None) -> tuple[Plane, ...]:
        """What the program holds, of float64 ``weight [rows, columns]``; ``floor [rows]`` as in :meth:`terms`."""
        least = None if floor is None else torch.from_numpy(floor)[:, None]
        dtype = encodings.find(self.encoding).dtype if self.encoding else "int8"
        return tuple(
            Plane(integers.numpy().astype(dtype), self.encoding, self.bits, scale[:, 0].numpy())
            for integers, scale in self.terms(torch.from_numpy(weight), least)
        )


def least_squares_scale(size: Tensor, found: Tensor) -> Tensor:
    """The scales ``[rows, 1]`` with which integers ``found`` are nearest to ``size``, both ``[rows, columns]``.

    Of a row without any other integer than 0 it is 0.
    """
    return (size * found).sum(1, keepdim=True) / found.square().sum(1, keepdim=True).clamp(min=1)


def blocks(rows: Tensor, floor: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """``rows [rows, columns]``, with what belongs to each row, if anything, in parts that a cache holds."""
    few = max(1, IN_CACHE // rows.shape[1]) if rows.device.type == "cpu" else len(rows)
    parts = rows.split(few)
    yield from zip(parts, [None] * len(parts) if floor is None else floor.split(few), strict=True)


def joined(parts: Iterable[Term]) -> Term:
    """The plane of all rows."""
    integers, scales = zip(*parts, strict=True)
    return Term(torch.cat(integers), torch.cat(scales))


def least_scale(weight: Tensor) -> Tensor:
    """The smallest scale that a row of ``weight`` may have in a code without 0: nobody could measure it."""
    return (largest_magnitude(weight) * ROW_SCALE_FLOOR).clamp(min=ZERO_SCALE)


def largest_magnitude(weight: Tensor) -> Tensor:
    """The largest magnitude of ``weight``, in one pass that writes nothing."""
    low, high = weight.detach().aminmax()
    return torch.maximum(-low, high)


def signs(x: Tensor) -> Tensor:
    """-1 or 1, in the dtype of ``x``; that of 0 is 1."""
    return torch.copysign(torch.ones((), dtype=x.dtype, device=x.device), x + 0.0)  # -0.0 becomes 0.0


def usable(scale: Tensor, floor: Tensor | None) -> Tensor:
    """Scales of which none is 0 (of a tensor of zeros; any is right) or below ``floor``."""
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return scale if floor is None else torch.maximum(scale, floor)


class _Fake(torch.autograd.Function):
    """The planes' sum for the weight; no gradient passes the rounding itself."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, code: WeightCode) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.code = code
        value, ctx.terms = code.seen(weight)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return ctx.code.gradient(weight, ctx.terms, gradient), None
