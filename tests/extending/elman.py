"""Elman cell, ``torch.nn.RNN`` with tanh: ``h = tanh(W_x x + b_x + W_h h + b_h)``."""

from __future__ import annotations

import math
from typing import ClassVar, TypeVar

import torch
from torch import nn

from irnn.errors import IrnnError
from irnn.nn.activation import Activation
from irnn.nn.cells.base import Cell
from irnn.nn.linear import Linear
from irnn.quant.site import QuantSite
from irnn.wiring.executor import Executor, StateSpec

T = TypeVar("T")


class ElmanCell(Cell):
    """One direction of one layer; W_x ``[hidden, input]``, W_h ``[hidden, hidden]``."""

    TITLE = "RNN"
    TORCH_PARAMETERS: ClassVar = {
        "weight_ih": "w_x.weight",
        "weight_hh": "w_h.weight",
        "bias_ih": "w_x.bias_0",
        "bias_hh": "w_h.bias_0",
    }

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool, norm: str | None, hidden: QuantSite) -> None:
        super().__init__()
        if norm is not None:
            raise IrnnError(f"norm={norm!r}: an Elman cell has none; leave it out")
        bound = 1 / math.sqrt(hidden_size)

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))

        biases = [(parameter(hidden_size),) if bias else () for _ in range(2)]
        self.w_x = Linear(parameter(hidden_size, input_size), biases[0])
        self.w_h = Linear(parameter(hidden_size, hidden_size), biases[1], recurrent=True)
        self._hidden = (hidden,)  # registered by the layer: both directions share it
        self.preactivation = QuantSite("preactivation", hidden_size)
        self.tanh = Activation("tanh", self.preactivation)

    @classmethod
    def from_torch(cls, module: nn.RNN, layer: int, direction: int, *, hidden: QuantSite) -> ElmanCell:
        """See ``Cell``."""
        size = getattr(module, f"weight_ih_l{layer}").shape[1]
        cell = cls(size, module.hidden_size, bias=module.bias, norm=None, hidden=hidden)
        cell._load_torch(module, layer, direction)
        return cell

    def hoist(self, a: Executor[T], x: T) -> T:
        """W_x x + b_x at 16 bits."""
        return a.requantize(self.preactivation, a.linear(self.w_x, x))

    def step(self, a: Executor[T], pre: T, h: T) -> tuple[T, T]:
        """-> (h, h), from tanh's own steps to those of the hidden state."""
        recurrent = a.requantize(self.preactivation, a.linear(self.w_h, h))
        y = a.activation(self.tanh, a.add(self.preactivation, pre, recurrent))
        h = a.residual(self._hidden[0], y)
        return h, h

    def states(self, name: str) -> list[StateSpec]:
        """h at 8 bits."""
        return [StateSpec(f"{name}.h", self._hidden[0].size, self._hidden[0])]
