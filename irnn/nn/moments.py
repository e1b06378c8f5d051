"""Second moments of what a matrix multiplies."""

from __future__ import annotations

import torch
from torch import Tensor


class Moments:
    """The sum of ``x x^T`` over the vectors that a matrix multiplies."""

    def __init__(self, size: int) -> None:
        self.total = torch.zeros(size, size, dtype=torch.float64)
        self.count = 0

    def add(self, x: Tensor) -> None:
        """Vectors ``[..., size]``."""
        rows = x.detach().reshape(-1, len(self.total)).to("cpu", torch.float64)
        self.total += rows.T @ rows
        self.count += len(rows)

    @property
    def mean(self) -> Tensor:
        """``[size, size]``, float64."""
        return self.total / max(self.count, 1)
