"""The best multi-bit codes of a row, found from the magnitudes of its elements alone.

The ``2**k`` sums of ``+-alpha_j`` lie symmetric about 0, so that a row's codes are those of its magnitudes, and these
change where a magnitude passes a threshold.  Least squares needs no more than how many lie between two thresholds, and
their sum: a few passes over a row, in place of one for every pair of codes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from irnn.arithmetic.run_time_codes import MULTIBIT_CYCLES, determinant


class Levels(NamedTuple):
    """Which codes a magnitude has, L = 2**(k-1): those of the last threshold that it reaches.

    alphas: coefficients ``[rows, k]``.  thresholds: ascending, ``[rows, L - 1]``.  patterns: the codes, -1 and 1, of a
    positive element below the first threshold, from it on, and so on, ``[rows, L, k]``.
    """

    alphas: Tensor
    thresholds: Tensor
    patterns: Tensor

    def values(self, alphas: Tensor) -> Tensor:
        """What the patterns stand for with these coefficients, ``[rows, L]``."""
        first, *others = (self.patterns * alphas[:, None]).unbind(2)
        return sum(others, first)

    def looked_up(self, size: Tensor, levels: Tensor) -> Tensor:
        """One of ``levels [rows, L]`` for each of the magnitudes ``size [rows, columns]``: all but one are times 0."""
        first, *others = levels[:, :, None].unbind(1)
        reached = self.reached(size)
        found = (1 - reached[0]) * first if reached else first.expand_as(size)
        for k, level in enumerate(others):
            found.addcmul_(reached[k] - reached[k + 1] if k + 1 < len(reached) else reached[k], level)
        return found

    def reached(self, size: Tensor) -> list[Tensor]:
        """For each threshold which of ``size [rows, columns]`` reach it, 1 or 0 in the dtype of ``size``.

        Compared into numbers: PyTorch is several times as slow at truth values.
        """
        return [torch.ge(size, least, out=torch.empty_like(size)) for least in self.thresholds[:, :, None].unbind(1)]


def alternating_levels(size: Tensor, count: int) -> Levels:
    """Of magnitudes ``size [rows, columns]``: from the greedy codes on least squares and nearest codes in turn.

    The coefficients descend and are not negative.
    """
    levels = _greedy_levels(size, count)
    for _ in range(MULTIBIT_CYCLES):
        alphas = _fitted(size, levels).abs().sort(1, descending=True).values
        levels = nearest_levels(alphas)
    return levels


def nearest_levels(alphas: Tensor) -> Levels:
    """The levels by which a magnitude has the nearest of the sums of ``+-alphas [rows, k]``, of two the larger."""
    count = alphas.shape[1]
    places = torch.arange(1 << count, device=alphas.device)
    signs = torch.stack([((places >> k) & 1).to(alphas.dtype) * 2 - 1 for k in range(count)], 1)
    first, *others = (signs[:, k] * alphas[:, k : k + 1] for k in range(count))
    values, order = sum(others, first).sort(dim=1, stable=True)
    half = values.shape[1] // 2
    thresholds = (values[:, half + 1 :] + values[:, half:-1]) / 2
    return Levels(alphas, thresholds, signs[order[:, half:]])


def _greedy_levels(size: Tensor, count: int) -> Levels:
    """Each code is the sign of what is left, its coefficient the mean magnitude of that."""
    rest, alphas = size, []
    for _ in range(count):
        alphas.append(rest.mean(1))
        rest = (rest - alphas[-1][:, None]).abs_()
    # A code's sign splits what the codes before it have in common, unless that lies on one side of it altogether.
    ends = [alphas[0].new_full((len(size),), end) for end in (-torch.inf, torch.inf)]
    centres = [alphas[0]]
    for alpha in alphas[1:]:
        lows, highs = ends[:-1], ends[1:]
        splits = [c.clamp(low, high) for c, low, high in zip(centres, lows, highs, strict=True)]
        ends = [ends[0], *(end for pair in zip(splits, highs, strict=True) for end in pair)]
        centres = [centre for c in centres for centre in (c - alpha, c + alpha)]
    places = torch.arange(1 << (count - 1), device=size.device)
    later = [((places >> (count - 2 - k)) & 1).to(size.dtype) * 2 - 1 for k in range(count - 1)]
    patterns = torch.stack([torch.ones_like(places, dtype=size.dtype), *later], 1)
    thresholds = torch.stack(ends[1:-1], 1) if count > 1 else size[:, :0]
    return Levels(torch.stack(alphas, 1), thresholds, patterns.expand(len(size), -1, -1))


def _fitted(size: Tensor, levels: Levels) -> Tensor:
    """The coefficients ``[rows, k]`` of least squares for the codes that the levels give to ``size``."""
    reached = levels.reached(size)
    counts = torch.stack([size.new_full((len(size),), size.shape[1]), *(r.sum(1) for r in reached)], 1).double()
    sums = torch.stack([size.sum(1), *((size * r).sum(1) for r in reached)], 1).double()
    for of_levels in (counts, sums):  # of what reaches a threshold, less what reaches the next one as well
        of_levels[:, :-1] -= of_levels[:, 1:].clone()
    codes = levels.patterns.double()
    return solved(codes.mT @ (codes * counts[:, :, None]), (codes * sums[:, :, None]).sum(1), levels.alphas)


def solved(gram: Tensor, right: Tensor, alphas: Tensor) -> Tensor:
    """``gram^-1 right`` for symmetric ``gram [rows, k, k]``; ``alphas`` stay where the codes of a row depend on each
    other.  ``right``, ``alphas`` and the result are ``[rows, k]``.

    By Cramer's rule in float64: ``gram``, the codes' products with each other, are integers, so that it is exact
    whether a determinant is 0.
    """
    adjugate = _adjugate(gram)
    whole = (adjugate[:, 0] * gram[:, 0]).sum(1, keepdim=True)
    quotient = (adjugate * right[:, None]).sum(2) / torch.where(whole == 0, 1.0, whole)
    return torch.where(whole == 0, alphas.double(), quotient).to(alphas.dtype)


def _adjugate(gram: Tensor) -> Tensor:
    """Of symmetric matrices ``[rows, k, k]``."""
    count = gram.shape[1]
    if count == 3:
        return torch.linalg.cross(gram.roll(-1, 1), gram.roll(-2, 1))
    if count == 1:
        return torch.ones_like(gram)
    entries = [list(row.unbind(1)) for row in gram.unbind(1)]
    minors = [
        [determinant([row[:j] + row[j + 1 :] for k, row in enumerate(entries) if k != i]) for j in range(count)]
        for i in range(count)
    ]
    signed = [[-m if (i + j) % 2 else m for j, m in enumerate(row)] for i, row in enumerate(minors)]
    return torch.stack([torch.stack(row, 1) for row in signed], 1)
