"""Weights and the matrix product.

A module holds parameters and says how they are quantized; what is computed with them is the business of an executor
(``irnn.wiring``).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from irnn.nn.error_cost import ErrorCost
from irnn.quant.config import QuantConfig


def uniform(size: int, *shape: int) -> nn.Parameter:
    """A float32 parameter as torch's recurrent layers start theirs: uniform within +-1 / sqrt(size)."""
    bound = 1 / math.sqrt(size)
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))


class Weight(nn.Module):
    """A float matrix ``[rows, columns]`` with a role; base of :class:`Linear` and :class:`Embedding`.

    ``weight`` is a parameter, or computed from some (a folded norm).
    """

    recurrent = False  # whether x is a state

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role
        self.where = f"a weight of role {role!r}"  # what messages call it
        self.code = QuantConfig().weight_code(role)
        self.quantizing = False
        self.reads_hidden = role == "logits_weight"  # whether it multiplies what the role `hidden` decides on
        self.operand_codes: int | None = None  # in how many codes it reads that, see `QuantConfig.run_time_codes`
        self.error_cost: ErrorCost | None = None  # what is told of every product and look-up

    if TYPE_CHECKING:  # at run time a parameter is where torch keeps it

        @property
        def weight(self) -> Tensor:
            """The matrix."""

    @property
    def bias(self) -> Tensor | None:
        """What is added to each row, or None."""
        return None

    def configure(self, config: QuantConfig, name: str, *, quantizing: bool, coding: bool) -> None:
        """Set the code, and switch on or off quantization and the run-time codes of what is multiplied.

        name: what the matrix is called in ``config.of``.
        """
        self.code = config.weight_code(self.role, name)
        self.quantizing = quantizing
        self.operand_codes = config.run_time_codes if coding and self.reads_hidden else None

    @property
    def bits(self) -> int:
        """Of a weight, all planes of its code together."""
        return self.code.bits * self.code.planes

    @property
    def per_row(self) -> bool:
        """One scale a row, or one for the matrix."""
        return self.code.per_row

    @property
    def identity(self) -> int:
        """Equal for modules that share a weight (tied weights)."""
        return id(self.weight)

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for modules that share a weight and quantize it in one way: they quantize and store it once."""
        return self.identity, self.code


class Linear(Weight):
    """``y = W x + b`` with W ``[rows, columns]``.  ``biases`` are added up: torch's LSTM has two.

    ``recurrent``: x is the state, so that every step's product depends on the first one's.  ``reads_hidden``: x is a
    hidden state, or enters a layer in the place of one; so does what the output layer reads.
    """

    weight: nn.Parameter
    bias_0: nn.Parameter  # the first of `biases`, where there are any; bias_1 and so on

    def __init__(
        self,
        weight: nn.Parameter,
        biases: tuple[nn.Parameter, ...] = (),
        role: str = "weight",
        recurrent: bool = False,
        reads_hidden: bool = False,
    ) -> None:
        super().__init__(role)
        self.reads_hidden |= reads_hidden
        self.weight = weight
        self.recurrent = recurrent
        for k, bias in enumerate(biases):
            self.register_parameter(f"bias_{k}", bias)
        self.bias_count = len(biases)

    @property
    def bias(self) -> Tensor | None:
        """Sum of the biases ``[rows]``, or None."""
        if not self.bias_count:
            return None
        total: Tensor = self.bias_0
        for k in range(1, self.bias_count):
            total = total + getattr(self, f"bias_{k}")
        return total
