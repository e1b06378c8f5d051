"""W is the parameter and stays orthogonal: each update is of low rank and projected (QORNN's STE-projUNN).

Source: Kiani, Balestriero, LeCun and Lloyd 2022 (projUNN).  Of an update G the best approximation of rank k, ``a b^T``,
is taken, and W moves to

    D:  the orthogonal matrix nearest to W + a b^T (its polar factor)
    T:  W exp((W^T a b^T - b a^T W) / 2), along the geodesic of the tangent

Both change W within the 2 k dimensions of span{W^T a, b} alone: with an orthonormal basis Q of them the result is
``W + W Q (R - I) Q^T``, R ``[2 k, 2 k]`` orthogonal.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from irnn.nn.orthogonal.base import OrthogonalWeight
from irnn.nn.orthogonal.bjorck import bjorck


class ProjectedWeight(OrthogonalWeight):
    """Variant D.  ``weight`` starts as rotations of pairs by angles from -pi to pi (Henaff, Szlam and LeCun 2016)."""

    RANK = 1
    weight: nn.Parameter

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.weight = nn.Parameter(rotations(size))

    @torch.no_grad()
    def move(self, update: Tensor) -> None:
        """W towards ``W + update``, in place."""
        # Of a low rank by randomized subspace iteration; the seeds are those of the epoch.
        u, s, v = torch.svd_lowrank(update, q=min(self.RANK + 2, len(update)))
        a, b = u[:, : self.RANK] * s[: self.RANK], v[:, : self.RANK]
        p = self.weight.T @ a
        basis, _ = torch.linalg.qr(torch.cat([p, b], 1))
        inner = self.rotation(basis.T @ p, basis.T @ b)
        self.weight.add_(self.weight @ basis @ (inner - torch.eye(len(inner), device=inner.device)) @ basis.T)
        # What rounding has left of an error does not add up: one iteration squares it.
        self.weight.copy_(bjorck(self.weight, 1))

    def rotation(self, p: Tensor, b: Tensor) -> Tensor:
        """R of :mod:`irnn.nn.orthogonal.projected`; p and b ``[2 k, k]`` in the basis."""
        u, _, vh = torch.linalg.svd(torch.eye(len(p), device=p.device) + p @ b.T)
        return u @ vh


class TangentWeight(ProjectedWeight):
    """Variant T."""

    def rotation(self, p: Tensor, b: Tensor) -> Tensor:
        """See :class:`ProjectedWeight`."""
        return torch.linalg.matrix_exp((p @ b.T - b @ p.T) / 2)


def rotations(size: int) -> Tensor:
    """``[size, size]``: rotations of pairs of elements by random angles; an odd last element stays."""
    angles = torch.empty(size // 2).uniform_(-math.pi, math.pi)
    cos, sin = angles.cos(), angles.sin()
    blocks = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
    matrix = torch.block_diag(*blocks)
    return matrix if size % 2 == 0 else torch.block_diag(matrix, torch.ones(1, 1))
