"""The constants of integer programs: weights, factors and tables as integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from irnn.arithmetic.multipliers import choose_multiplier
from irnn.errors import IrnnError
from irnn.program import Tensor
from irnn.quant.codes import Plane
from irnn.quant.codes.base import TABLE_HIGH
from irnn.quant.finite import not_finite
from irnn.quant.pwl import PwlTable
from irnn.wiring.record import shorten

# No row's scale is so small that a bias leaves this.
BIAS_LIMIT = 2.0**30
# The largest gain of an element: |gain (x - zero point)| < 2**28, and a bias up to BIAS_LIMIT fits int32 beside it.
AFFINE_GAIN = 4096
# How far the scales of its elements lie apart.
AFFINE_REACH = 2.0**16


@dataclass(frozen=True)
class Matrix:
    """A quantized weight: its planes, the names of their constants, and the largest magnitude of their sum."""

    planes: tuple[Plane, ...]
    names: tuple[str, ...]
    largest: float

    @property
    def step(self) -> float:
        """What an 8-bit table with one scale would have, see :data:`TABLE_HIGH`."""
        return self.largest / TABLE_HIGH


def floor_half(x: np.ndarray) -> np.ndarray:
    return np.floor(x + 0.5).astype(np.int64)


def numbers(name: str, x: torch.Tensor) -> np.ndarray:
    """A parameter in float64 on the CPU; NaN or infinity is an :class:`IrnnError` that names it."""
    if problem := not_finite(name, x):
        raise IrnnError(f"{problem}; a program needs numbers: train again from intact weights")
    return x.detach().double().cpu().numpy()


def factors(real: list[np.ndarray], where: str) -> dict[str, Tensor]:
    """Multiplier and shift of each term of a sum at ``where``."""
    tensors = {}
    for k, factor in enumerate(real):
        multiplier, shift = choose_multiplier(shorten(factor), where)
        tensors[f"multiplier_{k}"] = Tensor(multiplier, 32)
        tensors[f"shift_{k}"] = Tensor(shift.astype(np.int8), 8)
    return tensors


def pwl_tensors(table: PwlTable) -> dict[str, Tensor]:
    knot_bits = 16  # the input's grid has at most 16 bits
    return {
        "knots": Tensor(table.knots.astype(np.int16), knot_bits),
        "slopes": Tensor(table.slopes.astype(np.int32), 32),
        "intercepts": Tensor(table.intercepts.astype(np.int32), 32),
    }
