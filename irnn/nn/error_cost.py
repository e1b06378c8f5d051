"""What an error of a matrix costs where the network ends, to second order."""

from __future__ import annotations

import torch
from torch import Tensor


class ErrorCost:
    """H ``[columns, columns]`` of one matrix: an error e of one of its rows costs about ``e H e^T``, of all rows alike.

    With g the gradient that reaches a product ``y = W x`` from the output, an error of row r moves the output by
    ``g_r (e . x)``: H is the sum of ``|g|^2 x x^T`` over all products, the one factor of the Fisher matrix in Martens
    and Grosse 2015, *K-FAC* (1503.05671), with the other one's rows summed up.  A row that is looked up is all of y:
    there H is the sum of ``g g^T``.  Where a matrix is both, the two add.
    """

    def __init__(self, size: int) -> None:
        self.total = torch.zeros(size, size, dtype=torch.float64)

    def product(self, x: Tensor, y: Tensor) -> None:
        """``y [..., rows]``, which is W ``x [..., columns]``.  No gradient reaches that of padding."""
        if y.requires_grad:
            seen = _rows(x)
            y.register_hook(lambda gradient: self._add(seen * _rows(gradient).norm(dim=1, keepdim=True)))

    def looked_up(self, y: Tensor) -> None:
        """``y [..., columns]``, rows of the matrix."""
        if y.requires_grad:
            y.register_hook(lambda gradient: self._add(_rows(gradient)))

    def _add(self, rows: Tensor) -> None:
        self.total += rows.T @ rows


def _rows(x: Tensor) -> Tensor:
    """``[rows, size]`` in float64 on the CPU, which no gradient reaches."""
    return x.detach().reshape(-1, x.shape[-1]).to("cpu", torch.float64)
