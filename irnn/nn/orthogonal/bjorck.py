"""W by spectral normalization and Bjorck's iterations of a free matrix (QORNN's STE-Bjorck, 2402.04012).

    A = V / ||V||_2,   then ITERATIONS times   A <- 3/2 A - 1/2 A A^T A

The iteration draws every singular value in (0, 1] towards 1 (Bjorck and Bowie 1971).  V starts orthogonal, where both
are the identity, and the norm is the exact one, so that no state of a power iteration has to travel with the weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from irnn.nn.orthogonal.base import OrthogonalWeight

ITERATIONS = 15


class BjorckWeight(OrthogonalWeight):
    """``latent`` is V."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.latent = nn.Parameter(nn.init.orthogonal_(torch.empty(size, size)))

    @property
    def weight(self) -> Tensor:
        """The orthogonal matrix that V stands for."""
        return bjorck(self.latent / torch.linalg.matrix_norm(self.latent, 2))

    @property
    def identity(self) -> int:
        return id(self.latent)


def bjorck(matrix: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """The orthogonal matrix nearest to one of spectral norm 1 (or below sqrt(3)), up to the last iteration's error."""
    for _ in range(iterations):
        matrix = 1.5 * matrix - 0.5 * matrix @ (matrix.T @ matrix)
    return matrix
