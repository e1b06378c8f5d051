"""Batch norms as what they multiply with and add, once their statistics run no more."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from irnn.errors import IrnnError

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


def need_statistics(norm: BatchNorm) -> None:
    """An :class:`IrnnError` where the norm keeps no running statistics."""
    if norm.running_mean is None or norm.running_var is None:
        raise IrnnError("a batch norm without running statistics cannot be folded: track_running_stats=True has them")


def folded(norm: BatchNorm) -> tuple[Tensor, Tensor]:
    """(factor, summand) ``[size]`` by the running statistics; gradients reach the norm's own scale and shift."""
    assert norm.running_mean is not None  # see `need_statistics`
    assert norm.running_var is not None
    factor = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        factor = factor * norm.weight
    summand = -norm.running_mean * factor
    return factor, summand if norm.bias is None else summand + norm.bias
