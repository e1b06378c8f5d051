"""GRU cell, PyTorch's variant: the reset gate multiplies ``W_hn h + b_hn`` (Cho et al. 2014, as cuDNN computes it).

    r = sigmoid(W_xr x + b_xr + W_hr h + b_hr)
    z = sigmoid(W_xz x + b_xz + W_hz h + b_hz)
    n = tanh(W_xn x + b_xn + r (W_hn h + b_hn))
    h = (1 - z) n + z h

The only state is h at 16 bits: 8 bits would swallow every update below half a step, and a slow gate makes nothing but
such.  Products and the output sequence read it at 8 bits.  n is never negated: rounding half up is not odd.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar, TypeVar

from torch import nn

from irnn.nn.activation import Activation
from irnn.nn.cells.base import Cell
from irnn.nn.containers import ModuleDict
from irnn.nn.gates import Gates
from irnn.nn.linear import Linear, uniform
from irnn.nn.norm import Norm
from irnn.quant.site import QuantSite
from irnn.wiring.executor import Executor, StateSpec

T = TypeVar("T")


class GRUCell(Cell):
    """One direction of one layer.

    Shapes: W_x ``[3 hidden, input]``, W_h ``[3 hidden, hidden]``, in the gate order r, z, n.  A norm stands at W_x x
    and at W_h h of each gate; h itself has none, which is carried on and would be normalized anew every step.
    """

    TITLE = "GRU"
    TORCH_PARAMETERS: ClassVar = {
        "weight_ih": "w_x.weight",
        "weight_hh": "w_h.weight",
        "bias_ih": "w_x.bias_0",
        "bias_hh": "w_h.bias_0",
    }

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool, norm: str | None, hidden: QuantSite) -> None:
        super().__init__()
        rows = 3 * hidden_size
        parameter = partial(uniform, hidden_size)
        self.hidden_size = hidden_size
        b_x, b_h = ((parameter(rows),), (parameter(rows),)) if bias else ((), ())
        self.w_x = Linear(parameter(rows, input_size), b_x, reads_hidden=True)
        self.w_h = Linear(parameter(rows, hidden_size), b_h, recurrent=True, reads_hidden=True)
        self._hidden = (hidden,)  # registered by the layer: both directions share it
        # Of W_x x, of W_h h and of their sum, which r and z read; n's sum has another term and a scale of its own.
        self.preactivation = QuantSite("preactivation", rows, groups=3)
        self.candidate = QuantSite("preactivation", hidden_size)
        self.cell = QuantSite("cell", hidden_size)
        gate_input = self.preactivation
        self.norm_x = self.norm_h = None
        if norm is not None:
            self.norm_x, self.norm_h = Norm(norm, rows, groups=3), Norm(norm, rows, groups=3)
            gate_input = self.norm_gates = QuantSite("norm", rows, groups=3)
        self._gate_input = (gate_input,)
        self.gates = ModuleDict(
            {
                "r": Activation("sigmoid", gate_input, 0),
                "z": Activation("sigmoid", gate_input, 1),
                "n": Activation("tanh", self.candidate),
            }
        )
        self._gates = Gates([self.gates["r"], self.gates["z"]])

    @classmethod
    def from_torch(cls, module: nn.RNNBase, layer: int, direction: int, *, hidden: QuantSite) -> GRUCell:
        """See :meth:`Cell.from_torch`."""
        size = getattr(module, f"weight_ih_l{layer}").shape[1]
        cell = cls(size, module.hidden_size, bias=module.bias, norm=None, hidden=hidden)
        cell._load_torch(module, layer, direction)
        return cell

    def hoist(self, a: Executor[T], x: T) -> T:
        """W_x x + b_x."""
        pre = a.requantize(self.preactivation, a.linear(self.w_x, x))
        return pre if self.norm_x is None else a.norm(self.norm_x, self.norm_gates, pre)

    def step(self, a: Executor[T], pre: T, h: T) -> tuple[T, T]:
        """One time step -> (h at 8 bits, h at 16 bits): the output and the next state."""
        pre_h = a.requantize(self.preactivation, a.linear(self.w_h, a.residual(self._hidden[0], h)))
        if self.norm_h is not None:
            pre_h = a.norm(self.norm_h, self.norm_gates, pre_h)
        summed = a.add(self._gate_input[0], pre, pre_h)
        parts = a.split(summed, 3)
        x_n, h_n = (a.split(part, 3)[2] for part in (pre, pre_h))
        r, z = a.gates(self._gates, summed, parts)
        n = a.activation(self.gates["n"], a.requantize(self.candidate, x_n, a.multiply(r, h_n)))
        h = a.requantize(self.cell, a.multiply(a.complement(z), n), a.multiply(z, h))
        return a.residual(self._hidden[0], h), h

    def states(self, name: str) -> list[StateSpec]:
        """h at 16 bits."""
        return [StateSpec(f"{name}.h", self.hidden_size, self.cell)]
