"""What an executor asks of the parts of a network: the interfaces behind which the modules of ``irnn.nn`` stand."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from irnn.program.windows import Window
from irnn.quant.codes import WeightCode
from irnn.quant.fake import Grid
from irnn.quant.lines import Lines, Table
from irnn.quant.pwl import PwlTable
from irnn.quant.site import QuantSite


class ErrorCostPart(Protocol):
    """Sums up what errors of a matrix cost (``irnn.nn.error_cost.ErrorCost``)."""

    def product(self, x: Tensor, y: Tensor) -> None:
        """``y [..., rows]`` of ``x [..., columns]``."""

    def looked_up(self, y: Tensor) -> None:
        """``y [..., columns]``, rows of the matrix."""


class WeightPart(Protocol):
    """A matrix ``[rows, columns]`` and how it is quantized (``irnn.nn.linear.Weight``)."""

    role: str
    where: str
    quantizing: bool
    code: WeightCode
    operand_codes: int | None

    @property
    def error_cost(self) -> ErrorCostPart | None:
        """What is told of every product and look-up; None: nothing is."""

    @property
    def weight(self) -> Tensor:
        """The matrix."""

    @property
    def bias(self) -> Tensor | None:
        """``[rows]``, or None."""

    @property
    def recurrent(self) -> bool:
        """Whether the product is that of a state: every step's depends on the one before."""

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for modules whose weights are one tensor, quantized in one way."""


class NormPart(Protocol):
    """A norm over each of ``groups`` equal parts of the last axis (``irnn.nn.norm.Norm``)."""

    EPSILON: float
    where: str
    kind: str
    groups: int

    @property
    def weight(self) -> Tensor:
        """The scale of each element."""

    @property
    def bias(self) -> Tensor:
        """What is added to each element."""

    def __call__(self, x: Tensor) -> Tensor:
        """In real numbers."""


class ThresholdPart(Protocol):
    """What modReLU adds to magnitudes (``irnn.nn.activation.ModReLU``)."""

    where: str

    @property
    def bias(self) -> Tensor:
        """b ``[size]``."""


class ActivationPart(Protocol):
    """A function of one number, of a group of a site (``irnn.nn.activation.Activation``)."""

    function: str

    @property
    def output(self) -> QuantSite | None:
        """Where the result is quantized; None: at a gate's fixed format."""

    def exact(self, x: Tensor) -> Tensor:
        """The function itself."""

    @property
    def site(self) -> QuantSite:
        """Where the input is quantized."""

    def table(self) -> PwlTable:
        """The integers' table."""

    def __call__(self, x: Tensor) -> Tensor:
        """In real numbers, by the table where there is one."""

    pieces: int | None

    def lines(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Of a table, in real numbers: where pieces start, their slopes and intercepts."""

    def piecewise(self, x: Tensor, lines: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """In real numbers, by these lines of the table."""

    def own(self, x: Tensor) -> Tensor:
        """What of x is looked up."""

    def looked_up(self, grid: Grid) -> Table | None:
        """Values and slopes at every integer of the site's grid, where there is a table."""


class GatesPart(Protocol):
    """Functions of the first parts of a value, one part a group of its site (``irnn.nn.gates.Gates``)."""

    functions: tuple[Any, ...]
    site: QuantSite
    parts: int

    def lines(self, device: torch.device) -> Lines | None:
        """All of them in real numbers; None unless all are piecewise linear."""

    def own(self, x: Tensor) -> Tensor:
        """What of x is looked up."""

    def looked_up(self, grid: Grid) -> Table | None:
        """Values and slopes at every integer of the site's grid, where there are tables."""


class AffinePart(Protocol):
    """A factor and a summand for each element (``irnn.nn.affine``)."""

    where: str

    @property
    def gain(self) -> Tensor:
        """``[size]``."""

    @property
    def shift(self) -> Tensor:
        """``[size]``."""


class ExponentialPart(Protocol):
    """Softmax over a memory (``irnn.nn.attention.Exponential``)."""

    STEP: float

    def table(self) -> np.ndarray:
        """The integers' table of exp of the distance below the best, one entry each ``STEP``."""

    def __call__(self, score: Tensor, valid: Tensor) -> Tensor:
        """Scores and what is no padding -> probabilities."""


class ConvolutionPart(WeightPart, Protocol):
    """Filters with a norm folded in (``irnn.nn.convolution.Convolution``)."""

    channels: int
    window: Window
    batch_statistics: bool

    @property
    def kernel(self) -> Tensor:
        """The filters without the norm."""

    def normalized(self, y: Tensor, lengths: Tensor) -> Tensor:
        """Training: filtered sequences, normalized by the statistics of their valid steps."""
