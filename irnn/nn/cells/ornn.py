"""Orthogonal recurrent cell, ``h = f(W h + U x + b)`` with W orthogonal, f the identity, ReLU or modReLU.

Source: QORNN (Foucault, Mamalet and Malgouyres 2024, 2402.04012), HadamRNN (ICLR 2025).  A ``linear`` recurrence has no
f in its loop, ``h = W h + U x + b``, and f is applied to what leaves the layer.  The state has the bits of the role
``cell`` and a scale that is a power of two; products, the output sequence included, read it as it is, so that nothing
is lost between steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from irnn.errors import IrnnError
from irnn.nn.activation import ModReLU
from irnn.nn.cells.base import Cell
from irnn.nn.fast.recurrence import recurrence
from irnn.nn.linear import Linear, Weight, uniform
from irnn.nn.orthogonal import orthogonal_weight
from irnn.quant.site import QuantSite
from irnn.wiring.executor import Executor, StateSpec
from irnn.wiring.simulate import Simulation

T = TypeVar("T")
NONLINEARITIES = ("identity", "relu", "modrelu")


class ORNNCell(Cell):
    """One direction of one layer: U ``[hidden, input]``, W ``[hidden, hidden]``.

    nonlinearity: f.  linear: whether it stands outside the loop.  orthogonal: what keeps W so, one of
    ``irnn.nn.orthogonal.ORTHOGONAL``, or None: nothing does (torch's RNN with ReLU).
    """

    TITLE = "ORNN"
    OPTIONS: ClassVar = ("nonlinearity", "linear", "orthogonal")
    QUANT: ClassVar = {"cell": 12}  # as QORNN's states

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool,
        norm: str | None,
        hidden: QuantSite,
        nonlinearity: str = "relu",
        linear: bool = False,
        orthogonal: str | None = "bjorck",
    ) -> None:
        super().__init__()
        if norm is not None:
            raise IrnnError(f"norm={norm!r}: an orthogonal cell has none; leave it out")
        if nonlinearity not in NONLINEARITIES:
            raise IrnnError(f"nonlinearity={nonlinearity!r} is unknown; allowed are {', '.join(NONLINEARITIES)}")
        if not isinstance(linear, bool):
            raise IrnnError(f"linear={linear!r} must be true or false")
        self.nonlinearity, self.linear = nonlinearity, linear
        u = nn.Parameter(nn.init.xavier_normal_(torch.empty(hidden_size, input_size)))
        self.w_x = Linear(u, (nn.Parameter(torch.zeros(hidden_size)),) if bias else ())
        self.w_h: Weight
        if orthogonal is None:
            self.w_h = Linear(uniform(hidden_size, hidden_size, hidden_size), recurrent=True)
        else:
            self.w_h = orthogonal_weight(orthogonal, hidden_size)
        self._hidden = (hidden,)  # registered by the layer: both directions share it
        self.preactivation = QuantSite("preactivation", hidden_size)
        self.modrelu = ModReLU(hidden_size) if nonlinearity == "modrelu" else None

    @classmethod
    def output_site(cls, hidden_size: int, **options: Any) -> QuantSite:
        """The state's own."""
        return QuantSite("cell", hidden_size, power_of_two=True)

    @classmethod
    def from_torch(cls, module: nn.RNNBase, layer: int, direction: int, *, hidden: QuantSite) -> ORNNCell:
        """Of ``torch.nn.RNN(nonlinearity="relu")``, whose W nothing keeps orthogonal; its two biases become one."""
        if module.mode != "RNN_RELU":
            raise IrnnError(f"{module.mode} is no ReLU RNN; torch.nn.RNN(nonlinearity='relu') is what an ORNN can be")
        suffix = f"_l{layer}" + ("_reverse" if direction else "")
        values = {name.removesuffix(suffix): value.data for name, value in module.named_parameters()
                  if name.endswith(suffix)}  # fmt: skip
        cell = cls(values["weight_ih"].shape[1], module.hidden_size, bias=module.bias, norm=None, hidden=hidden,
                   orthogonal=None)  # fmt: skip
        cell.w_x.weight.data.copy_(values["weight_ih"])
        cell.get_parameter("w_h.weight").data.copy_(values["weight_hh"])
        if module.bias:
            cell.w_x.bias_0.data.copy_(values["bias_ih"] + values["bias_hh"])
        return cell

    def hoist(self, a: Executor[T], x: T) -> T:
        """U x + b at 16 bits."""
        return a.requantize(self.preactivation, a.linear(self.w_x, x))

    def step(self, a: Executor[T], pre: T, h: T) -> tuple[T, T]:
        """One time step -> (h, h)."""
        product = a.linear(self.w_h, h)
        if self.nonlinearity == "relu" and not self.linear:
            h = a.relu(self._hidden[0], product, pre)
            return h, h
        h = a.requantize(self._hidden[0], product, pre)
        if self.modrelu is not None and not self.linear:
            h = a.mod_relu(self.modrelu, self._hidden[0], h)
        return h, h

    def finish(self, a: Executor[T], y: T) -> T:
        """f behind a linear loop."""
        if not self.linear or self.nonlinearity == "identity":
            return y
        return a.relu(self._hidden[0], y) if self.modrelu is None else a.mod_relu(self.modrelu, self._hidden[0], y)

    def whole(self) -> Callable[..., Any] | None:
        """Unless the state is quantized, or modReLU stands in the loop."""
        if self._hidden[0].quantizing or (self.modrelu is not None and not self.linear):
            return None
        return self._at_once

    def _at_once(self, a: Simulation, pre: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """What :meth:`step` computes, for all steps; the site sees what it sees there."""
        relu = self.nonlinearity == "relu" and not self.linear
        h = a.requantize(self._hidden[0], recurrence(pre, a.weight(self.w_h), before, relu=relu))
        return h, h

    def states(self, name: str) -> list[StateSpec]:
        """h."""
        return [StateSpec(f"{name}.h", self._hidden[0].size, self._hidden[0])]
