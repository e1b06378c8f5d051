"""W by spectral normalization and Bjorck's iterations of a free matrix (QORNN's STE-Bjorck, 2402.04012).

    A = V / ||V||_2,   then ITERATIONS times   A <- 3/2 A - 1/2 A A^T A

The iteration draws every singular value in (0, 1] towards 1 (Bjorck and Bowie 1971).  V starts orthogonal, where both
are the identity.  The norm is found by products alone, within 1 % and never too small: no state of a power iteration
has to travel with the weights, and a GPU does not wait for a decomposition.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from irnn.nn.orthogonal.base import OrthogonalWeight

ITERATIONS = 15
SQUARINGS = 8


class BjorckWeight(OrthogonalWeight):
    """``latent`` is V."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.latent = nn.Parameter(nn.init.orthogonal_(torch.empty(size, size)))

    @property
    def weight(self) -> Tensor:
        """The orthogonal matrix that V stands for."""
        return bjorck(self.latent / spectral_norm(self.latent.detach()))

    @property
    def identity(self) -> int:
        return id(self.latent)


def spectral_norm(matrix: Tensor) -> Tensor:
    """The Schatten norm of order 512, ``(sum s^512)^(1/512)`` over the singular values s: from the largest of them to
    ``size^(1/512)`` times that.

    It carries no gradient: what the iterations end at does not depend on the scale that they start from.
    """
    gram = matrix @ matrix.T
    norm = torch.linalg.matrix_norm(gram)  # of Frobenius
    found, power = norm, 1.0
    for _ in range(SQUARINGS - 1):
        gram = gram / norm  # so that nothing overflows
        gram = gram @ gram
        norm = torch.linalg.matrix_norm(gram)
        power /= 2
        found = found * norm**power
    return found.sqrt()


def bjorck(matrix: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """The orthogonal matrix nearest to one of spectral norm 1 (or below sqrt(3)), up to the last iteration's error."""
    for _ in range(iterations):
        matrix = 1.5 * matrix - 0.5 * matrix @ (matrix.T @ matrix)
    return matrix
