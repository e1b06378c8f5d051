"""Bahdanau attention, normalized: ``score = v_hat . tanh(W_q q + W_k k + b)`` with ``v_hat = g v / ||v||``.

Source: Bahdanau et al. 2015; the normalization is weight norm (Salimans and Kingma 2016), as in Espresso's decoder.
On integers (``fixed_point``) keys and query live at one int16 scale, exp is a table, and one reciprocal divides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from irnn.arithmetic.fixed_point import EXP_ENTRIES, EXP_ONE
from irnn.errors import IrnnError
from irnn.nn.activation import Activation
from irnn.nn.linear import Linear, Weight
from irnn.quant.fake import round_half_up
from irnn.quant.pwl import fit
from irnn.quant.site import QuantSite
from irnn.wiring.executor import Executor

# The last of the 256 distances is 12: exp(-12) * 65535 = 0.4 rounds to 0, as the table's end must.
EXP_STEP = 12 / (EXP_ENTRIES - 1)
T = TypeVar("T")


@dataclass(frozen=True)
class Memory(Generic[T]):
    """What a decoder attends to: an encoder's output, its keys, the lengths of both; for any executor."""

    values: T
    keys: T
    lengths: T


class NormalizedVector(Weight):
    """``weight [1, size] = g v / ||v||``."""

    def __init__(self, size: int) -> None:
        super().__init__("weight")
        self.v = nn.Parameter(torch.empty(1, size).uniform_(-0.1, 0.1))
        self.g = nn.Parameter(torch.ones(1))

    @property
    def weight(self) -> Tensor:
        """The vector as a matrix of one row."""
        return self.g * self.v / self.v.norm()

    @property
    def identity(self) -> int:
        return id(self.v)


class Exponential(nn.Module):
    """Softmax over a memory: exact, or by the integers' table of exp (256 distances below the best) from "pwl" on."""

    STEP = EXP_STEP

    def __init__(self) -> None:
        super().__init__()
        self.pieces: int | None = None
        self.method = "greedy"
        self._fitted: tuple[tuple[int, str], np.ndarray] | None = None  # what for, the table

    def configure(self, pieces: int | None, method: str) -> None:
        """``pieces=None`` is the exact function; with a table distances are rounded to its 256 entries."""
        self.pieces, self.method = pieces, method

    def table(self) -> np.ndarray:
        """exp(-12 k / 255) in 1/65535, uint16[256], by a piecewise-linear fit."""
        if self.pieces is None:
            raise IrnnError('an exact softmax has no table: prepare the model for stage "pwl" or a later one')
        chosen = (self.pieces, self.method)
        if self._fitted is None or self._fitted[0] != chosen:
            fitted = fit(
                "exp",
                scale=EXP_STEP,
                zero_point=0,
                bits=8,
                quant_min=0,
                quant_max=EXP_ENTRIES - 1,
                output_scale=1 / EXP_ONE,
                output_zero_point=0,
                output_min=0,
                output_max=EXP_ONE,
                pieces=self.pieces,
                method=self.method,
            )
            self._fitted = (chosen, fitted(fitted.grid).astype(np.uint16))
        return self._fitted[1]

    def forward(self, score: Tensor, valid: Tensor) -> Tensor:
        """Scores and what is no padding ``[batch, memory]`` -> probabilities; the gradient is the exact softmax's."""
        score = score.float().masked_fill(~valid, -math.inf)
        exact = torch.softmax(score, dim=-1)
        if self.pieces is None:
            return exact
        with torch.no_grad():
            distance = score.amax(dim=-1, keepdim=True) - score
            delta = round_half_up(distance / EXP_STEP).clamp_(0, EXP_ENTRIES - 1).long()
            table = torch.as_tensor(self.table().astype(np.float32), device=score.device)
            e = table[delta] * valid
            correction = e / e.sum(-1, keepdim=True) - exact
        return exact + correction


class Attention(nn.Module):
    """``size`` is that of query and keys inside the tanh; keys are made once an utterance, a query each step."""

    def __init__(self, query_size: int, memory_size: int, size: int) -> None:
        super().__init__()
        self.query = Linear(_uniform(size, query_size))
        self.key = Linear(_uniform(size, memory_size), (nn.Parameter(torch.zeros(size)),))
        self.v = NormalizedVector(size)
        self.preactivation = QuantSite("preactivation", size)
        self.tanh = Activation("tanh", self.preactivation)
        self.exponential = Exponential()
        self.context = QuantSite("activation", memory_size)

    def keys(self, a: Executor[T], values: T) -> T:
        """W_k k + b of the encoder's output."""
        return a.requantize(self.preactivation, a.linear(self.key, values))

    def step(self, a: Executor[T], query: T, memory: Memory[T]) -> tuple[T, T]:
        """(context, weights) of one query."""
        q = a.requantize(self.preactivation, a.linear(self.query, query))
        weights = a.attention_weights(self.v, self.tanh, self.exponential, q, memory.keys, memory.lengths)
        return a.attention_context(self.context, weights, memory.values), weights


def _uniform(rows: int, columns: int) -> nn.Parameter:
    bound = 1 / math.sqrt(columns)
    return nn.Parameter(torch.empty(rows, columns).uniform_(-bound, bound))
