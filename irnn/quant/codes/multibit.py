"""Multi-bit codes: a row as a sum of 1 to 4 binary codes, ``w = sum_k alpha_k b_k`` (Xu et al., ICLR 2018, 1802.00150).

Three ways to the coefficients alpha >= 0 and the codes b, each with an error no larger than the one before:

- *greedy*: each code is the sign of what is left, its coefficient the mean magnitude of that;
- *refined*: after each code all coefficients are those of least squares (Guo et al. 2017);
- *alternating*: from the greedy start, twice in turn the coefficients of least squares for the codes, and for the
  coefficients the nearest of the 2**k values for each weight.

The sign of 0 is 1, and of two values equally near it is the one further from 0.  The same functions say what training
sees of an activation whose codes are found at run time; the integers of that are ``irnn.arithmetic.fixed_point``'s.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from irnn.quant.codes.base import Term, WeightCode, blocks, least_scale, signs, usable
from irnn.quant.codes.levels import Levels, alternating_levels, nearest_levels, solved

CODE_COUNTS = (1, 2, 3, 4)
# Latent weights stay within this (Xu et al., section 4).
WEIGHT_LIMIT = 1.0

Codes = tuple[list[Tensor], list[Tensor]]  # coefficients [rows, 1], codes [rows, columns] of -1 and 1


def greedy(rows: Tensor, count: int) -> Codes:
    """``rows [rows, columns]`` -> coefficients and codes, one after the other."""
    rest, alphas, codes = rows, [], []
    for _ in range(count):
        codes.append(signs(rest))
        alphas.append(rest.abs().mean(1, keepdim=True))
        rest = rest - alphas[-1] * codes[-1]
    return alphas, codes


def refined(rows: Tensor, count: int) -> Codes:
    """As :func:`greedy`, with the coefficients of least squares after each code."""
    rest = rows
    alphas: list[Tensor] = []
    codes: list[Tensor] = []
    for _ in range(count):
        codes.append(signs(rest))
        alphas = least_squares(rows, [*alphas, rest.abs().mean(1, keepdim=True)], codes)
        rest = rows - combined(alphas, codes)
    return [alpha.abs() for alpha in alphas], [signs(a) * code for a, code in zip(alphas, codes, strict=True)]


def alternating(rows: Tensor, count: int) -> Codes:
    """Least squares and nearest codes in turn; the coefficients descend."""
    return _codes(rows, alternating_levels(rows.abs(), count))


def least_squares(rows: Tensor, alphas: list[Tensor], codes: list[Tensor]) -> list[Tensor]:
    """Coefficients of the least squared error, see :func:`irnn.quant.codes.levels.solved`."""
    matrix = torch.stack(codes, 2).double()
    right = torch.stack([(code * rows).sum(1) for code in codes], 1).double()
    return list(solved(matrix.mT @ matrix, right, torch.cat(alphas, 1)).split(1, 1))


def nearest(rows: Tensor, alphas: list[Tensor]) -> list[Tensor]:
    """For each element the codes of the nearest of the 2**k sums of ``+-alpha``; alphas ``[rows, 1]``."""
    return _codes(rows, nearest_levels(torch.cat(alphas, 1)))[1]


def _codes(rows: Tensor, levels: Levels) -> Codes:
    """Coefficients and codes of ``rows`` by the levels of their magnitudes."""
    size, sign = rows.abs(), signs(rows)
    return list(levels.alphas.split(1, 1)), [
        levels.looked_up(size, pattern) * sign for pattern in levels.patterns.unbind(2)
    ]


def nearest_values(rows: Tensor, count: int, least: Tensor | None = None) -> Tensor:
    """``rows`` as a sum of ``count`` alternating codes, no coefficient of which is below ``least``."""
    return torch.cat([_nearest_values(part, count, least) for part, _ in blocks(rows)])


def _nearest_values(rows: Tensor, count: int, least: Tensor | None) -> Tensor:
    size = rows.abs()
    levels = alternating_levels(size, count)
    alphas = levels.alphas if least is None else levels.alphas.clamp(min=least)
    return signs(rows) * levels.looked_up(size, levels.values(alphas))


def combined(alphas: list[Tensor], codes: list[Tensor]) -> Tensor:
    """``sum_k alpha_k b_k``."""
    first, *others = (alpha * code for alpha, code in zip(alphas, codes, strict=True))
    return sum(others, first)


@dataclass(frozen=True)
class Multibit(WeightCode):
    """``width`` binary planes, each with a scale a row; what the three ways share."""

    width: int
    encoding: ClassVar[str] = "binary"
    BITS: ClassVar[tuple[int, ...]] = CODE_COUNTS
    RUN_TIME: ClassVar[str | None] = "alternating"

    @property
    def bits(self) -> int:
        """Of each plane."""
        return 1

    @property
    def planes(self) -> int:
        """As many as there are bits."""
        return self.width

    @abstractmethod
    def codes(self, rows: Tensor) -> Codes:
        """Coefficients >= 0 and codes of ``rows [rows, columns]``."""

    def terms(self, weight: Tensor, floor: Tensor | None = None) -> tuple[Term, ...]:
        """A plane a bit, of weights clipped to +-1.  A first scale that is raised takes the other codes along."""
        rows = weight.detach().clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT)
        alphas, codes = self.codes(rows)
        scales = [alpha.clamp(min=least_scale(weight)) for alpha in alphas]
        if floor is not None:
            raised = usable(scales[0], floor)
            again = nearest(rows, [raised, *scales[1:]])
            codes = [torch.where(raised > scales[0], new, old) for new, old in zip(again, codes, strict=True)]
            scales = [raised, *scales[1:]]
        return tuple(Term(code, scale) for code, scale in zip(codes, scales, strict=True))

    def gradient(self, weight: Tensor, terms: tuple[Term, ...], gradient: Tensor) -> Tensor:
        """Straight through, but for what would take a weight further out than it may be."""
        outwards = (weight.abs() >= WEIGHT_LIMIT) & (gradient * weight < 0)
        return gradient.masked_fill(outwards, 0)


@dataclass(frozen=True)
class Greedy(Multibit):
    """See :func:`greedy`."""

    def codes(self, rows: Tensor) -> Codes:
        """See :class:`Multibit`."""
        return greedy(rows, self.width)


@dataclass(frozen=True)
class Refined(Multibit):
    """See :func:`refined`."""

    def codes(self, rows: Tensor) -> Codes:
        """See :class:`Multibit`."""
        return refined(rows, self.width)


@dataclass(frozen=True)
class Alternating(Multibit):
    """See :func:`alternating`; the one that activations have, see ``irnn.arithmetic.run_time_codes.multibit``."""

    def codes(self, rows: Tensor) -> Codes:
        """See :class:`Multibit`."""
        return alternating(rows, self.width)

    def seen(self, weight: Tensor) -> tuple[Tensor, tuple[Term, ...]]:
        """See :class:`WeightCode`; without the codes themselves."""
        rows = weight.detach().clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT)
        return nearest_values(rows, self.width, least_scale(weight)), ()


class FakeMultibit(torch.autograd.Function):
    """``x [..., size]`` as a sum of ``count`` binary codes along its last axis; the gradient passes unchanged."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, count: int) -> Tensor:
        return nearest_values(x.reshape(-1, x.shape[-1]), count).reshape(x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
