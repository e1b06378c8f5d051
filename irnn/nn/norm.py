"""LayerNorm and MadNorm."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from irnn.errors import IrnnError

NORMS = ("layer", "mad")
# A Gaussian's mean absolute deviation is sqrt(2/pi) of its standard deviation.
MAD_OF_GAUSSIAN = math.sqrt(2 / math.pi)


class Norm(nn.Module):
    """LayerNorm or MadNorm over each of ``groups`` equal parts of the last axis, with scale ``weight`` and ``bias``.

    MadNorm (iRNN, section on normalization): mean absolute deviation instead of standard deviation.  :meth:`become_mad`
    turns a trained LayerNorm into one: the weight takes a Gaussian's ratio of the two, fine-tuning does the rest.
    """

    EPSILON = 1e-5  # float forms only; the integer forms map a constant row to beta

    def __init__(self, kind: str, size: int, groups: int = 1, initial: float = 1.0) -> None:
        super().__init__()
        if kind not in NORMS:
            raise IrnnError(f"unknown norm {kind!r}; allowed are {', '.join(NORMS)} and null")
        self.where = f"a {kind} norm"  # what messages call it
        self.target_kind = kind
        self.kind = "layer"
        self.size = size
        self.groups = groups
        self.weight = nn.Parameter(torch.full((size,), initial))
        self.bias = nn.Parameter(torch.zeros(size))

    @torch.no_grad()
    def become_mad(self) -> None:
        """Turn a LayerNorm into the MadNorm that is its equal on Gaussian data; a MadNorm stays as it is."""
        if self.kind == "layer":
            self.weight.mul_(MAD_OF_GAUSSIAN)
            self.kind = "mad"

    def forward(self, x: Tensor) -> Tensor:
        """Float forward, ``[..., size]`` -> ``[..., size]``."""
        rows = x.reshape(*x.shape[:-1], self.groups, self.size // self.groups)
        if self.kind == "layer":
            y = nn.functional.layer_norm(rows, rows.shape[-1:], eps=self.EPSILON)
        else:
            centred = rows - rows.mean(-1, keepdim=True)
            y = centred / (centred.abs().mean(-1, keepdim=True) + self.EPSILON)
        return y.reshape(x.shape) * self.weight + self.bias
