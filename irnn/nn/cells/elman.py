"""Elman cell, ``torch.nn.RNN``: ``h = f(W_x x + b_x + W_h h + b_h)``, f tanh or relu."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, TypeVar

from torch import nn

from irnn.errors import IrnnError
from irnn.nn.activation import Activation
from irnn.nn.cells.base import Cell
from irnn.nn.linear import Linear, uniform
from irnn.nn.norm import Norm
from irnn.quant.site import QuantSite
from irnn.wiring.executor import Executor, StateSpec

T = TypeVar("T")
NONLINEARITIES = ("tanh", "relu")


class ElmanCell(Cell):
    """One direction of one layer; W_x ``[hidden, input]``, W_h ``[hidden, hidden]``.

    h has the 8 bits of ``hidden``.  A norm stands at W_x x and at W_h h, as a GRU's.
    """

    TITLE = "RNN"
    TORCH_PARAMETERS: ClassVar = {
        "weight_ih": "w_x.weight",
        "weight_hh": "w_h.weight",
        "bias_ih": "w_x.bias_0",
        "bias_hh": "w_h.bias_0",
    }
    OPTIONS = ("nonlinearity",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool,
        norm: str | None,
        hidden: QuantSite,
        nonlinearity: str = "tanh",
    ) -> None:
        super().__init__()
        if nonlinearity not in NONLINEARITIES:
            raise IrnnError(f"nonlinearity={nonlinearity!r}: allowed are {', '.join(NONLINEARITIES)}")
        parameter = partial(uniform, hidden_size)
        biases = [(parameter(hidden_size),) if bias else () for _ in range(2)]
        self.w_x = Linear(parameter(hidden_size, input_size), biases[0], reads_hidden=True)
        self.w_h = Linear(parameter(hidden_size, hidden_size), biases[1], recurrent=True, reads_hidden=True)
        self._hidden = (hidden,)  # registered by the layer: both directions share it
        self.preactivation = QuantSite("preactivation", hidden_size)
        summed = self.preactivation
        self.norm_x = self.norm_h = None
        if norm is not None:
            self.norm_x, self.norm_h = Norm(norm, hidden_size), Norm(norm, hidden_size)
            summed = self.norm_sum = QuantSite("norm", hidden_size)
        self._summed = (summed,)
        self.tanh = Activation("tanh", summed) if nonlinearity == "tanh" else None

    @classmethod
    def from_torch(cls, module: nn.RNNBase, layer: int, direction: int, *, hidden: QuantSite) -> ElmanCell:
        """See :meth:`Cell.from_torch`."""
        size = getattr(module, f"weight_ih_l{layer}").shape[1]
        nonlinearity = module.mode.lower().removeprefix("rnn_")
        cell = cls(size, module.hidden_size, bias=module.bias, norm=None, hidden=hidden, nonlinearity=nonlinearity)
        cell._load_torch(module, layer, direction)
        return cell

    def hoist(self, a: Executor[T], x: T) -> T:
        """W_x x + b_x at 16 bits."""
        pre = a.requantize(self.preactivation, a.linear(self.w_x, x))
        return pre if self.norm_x is None else a.norm(self.norm_x, self.norm_sum, pre)

    def step(self, a: Executor[T], pre: T, h: T) -> tuple[T, T]:
        """One time step -> (h, h)."""
        recurrent = a.requantize(self.preactivation, a.linear(self.w_h, h))
        if self.norm_h is not None:
            recurrent = a.norm(self.norm_h, self.norm_sum, recurrent)
        total = a.add(self._summed[0], pre, recurrent)
        if self.tanh is None:
            h = a.relu(self._hidden[0], total)
        else:
            h = a.residual(self._hidden[0], a.activation(self.tanh, total))
        return h, h

    def states(self, name: str) -> list[StateSpec]:
        """h at the output's site."""
        return [StateSpec(f"{name}.h", self._hidden[0].size, self._hidden[0])]
