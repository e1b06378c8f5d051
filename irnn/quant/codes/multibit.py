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

from irnn.arithmetic.run_time_codes import MULTIBIT_CYCLES, determinant
from irnn.quant.codes.base import Term, WeightCode, signs, usable, zero_free

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
    alphas, codes = greedy(rows, count)
    for _ in range(MULTIBIT_CYCLES):
        alphas = least_squares(rows, alphas, codes)
        alphas = list(torch.cat(alphas, 1).abs().sort(1, descending=True).values.split(1, 1))
        codes = nearest(rows, alphas)
    return alphas, codes


def least_squares(rows: Tensor, alphas: list[Tensor], codes: list[Tensor]) -> list[Tensor]:
    """Coefficients of the least squared error; the given ones stay where the codes of a row depend on each other.

    By Cramer's rule in float64: the codes' products with each other are integers, so that it is exact whether a
    determinant is 0.
    """
    gram = [[(p * q).sum(1, keepdim=True).double() for q in codes] for p in codes]
    right = [(code * rows).sum(1, keepdim=True).double() for code in codes]
    whole = determinant(gram)
    found = []
    for j, alpha in enumerate(alphas):
        replaced = [[right[i] if k == j else gram[i][k] for k in range(len(codes))] for i in range(len(codes))]
        solved = determinant(replaced) / torch.where(whole == 0, 1.0, whole)
        found.append(torch.where(whole == 0, alpha.double(), solved).to(rows.dtype))
    return found


def nearest(rows: Tensor, alphas: list[Tensor]) -> list[Tensor]:
    """For each element the codes of the nearest of the 2**k sums of ``+-alpha``; alphas ``[rows, 1]``."""
    count, sign = len(alphas), signs(rows)
    places = torch.arange(1 << count, device=rows.device)
    patterns = [((places >> k) & 1).to(rows.dtype) * 2 - 1 for k in range(count)]
    values, order = combined(alphas, patterns).sort(dim=1, stable=True)
    # The values lie symmetric about 0, so that magnitudes are compared with the upper half: from its first one on, a
    # code changes where a magnitude passes the middle between two of them.
    half, size = values.shape[1] // 2, rows.abs()
    between = (values[:, half + 1 :] + values[:, half:-1]) / 2
    passed = [(size >= middle[:, None]).to(rows.dtype) for middle in between.unbind(1)]
    codes = []
    for pattern in patterns:
        upper = pattern[order[:, half:]]
        code = upper[:, :1].expand_as(rows).clone()
        for step, change in zip(passed, upper.diff(dim=1).unbind(1), strict=True):
            code.addcmul_(step, change[:, None])
        codes.append(code.mul_(sign))
    return codes


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
        scales = [zero_free(alpha, weight) for alpha in alphas]
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


class FakeMultibit(torch.autograd.Function):
    """``x [..., size]`` as a sum of ``count`` binary codes along its last axis; the gradient passes unchanged."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, count: int) -> Tensor:
        return combined(*alternating(x.reshape(-1, x.shape[-1]), count)).reshape(x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
