"""LSTM cell with explicit gates and every quantization site named; the wiring stands here once, for every executor.

``torch.nn.LSTM``'s parameters load as they are (gate order i, f, g, o; two biases), and with no norm and no
quantization the two are equal.  The layer-normalized LSTM normalizes W_x x and W_h h of each gate and c (Hou et al.,
NeurIPS 2019; iRNN).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn

from irnn.nn.activation import Activation
from irnn.nn.cells.base import Cell
from irnn.nn.containers import ModuleDict
from irnn.nn.fast.exact_bilstm import exact_bilstm
from irnn.nn.gates import Gates
from irnn.nn.linear import Linear, uniform
from irnn.nn.norm import Norm
from irnn.quant.site import QuantSite
from irnn.wiring.executor import Executor, StateSpec

T = TypeVar("T")

GATES = ("i", "f", "g", "o")
FUNCTIONS = ("sigmoid", "sigmoid", "tanh", "sigmoid")


class MemoryCell(Cell):
    """What cells of the states h and c share."""

    STATES = ("h", "c")
    hidden_size: int
    cell: QuantSite
    _hidden: tuple[QuantSite, ...]

    def states(self, name: str) -> list[StateSpec]:
        """h at the output's site, c at its own."""
        return [
            StateSpec(f"{name}.h", self._hidden[0].size, self._hidden[0]),
            StateSpec(f"{name}.c", self.hidden_size, self.cell),
        ]


class LSTMCell(MemoryCell):
    """One direction of one layer.

    Shapes: W_x ``[4 hidden, input]``, W_h ``[4 hidden, hidden]``, in the gate order i, f, g, o.  With
    ``context_size`` each step has a second input, W_c ``[4 hidden, context]`` (input feeding of a context vector).
    With ``proj_size`` h is projected, W_r ``[proj, hidden]`` (Sak et al. 2014), and W_h is ``[4 hidden, proj]``.
    """

    TITLE = "LSTM"
    TORCH_PARAMETERS: ClassVar = {
        "weight_ih": "w_x.weight",
        "weight_hh": "w_h.weight",
        "bias_ih": "w_x.bias_0",
        "bias_hh": "w_x.bias_1",
        "weight_hr": "w_r.weight",
    }
    OPTIONS = ("proj_size",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool,
        norm: str | None,
        hidden: QuantSite,
        context_size: int | None = None,
        proj_size: int = 0,
    ) -> None:
        super().__init__()
        rows, state_size = 4 * hidden_size, proj_size or hidden_size
        parameter = partial(uniform, hidden_size)
        self.hidden_size = hidden_size
        biases = (parameter(rows), parameter(rows)) if bias else ()
        self.w_x = Linear(parameter(rows, input_size), biases, reads_hidden=True)
        self.w_h = Linear(parameter(rows, state_size), recurrent=True, reads_hidden=True)
        self.w_c = None if context_size is None else Linear(parameter(rows, context_size), reads_hidden=True)
        # Recurrent as well: the next step's product with W_r depends on this one's.
        self.w_r = Linear(parameter(proj_size, hidden_size), recurrent=True) if proj_size else None
        self.unprojected = QuantSite("activation", hidden_size) if proj_size else None
        self._hidden = (hidden,)  # registered by the layer: both directions share it
        self.preactivation = QuantSite("preactivation", rows, groups=4)
        self.cell = QuantSite("cell", hidden_size)
        gate_input, cell_read = self.preactivation, self.cell
        self.norm_x = self.norm_h = self.norm_c = None
        if norm is not None:
            # W_x x and W_h h share one scale a gate, so the two norms add up without another rescale.
            self.norm_x, self.norm_h = Norm(norm, rows, groups=4), Norm(norm, rows, groups=4)
            self.norm_c = Norm(norm, hidden_size)
            gate_input = self.norm_gates = QuantSite("norm", rows, groups=4)
            cell_read = self.norm_cell = QuantSite("norm", hidden_size)
        self._gate_input = (gate_input,)
        self.gates = ModuleDict(
            {n: Activation(f, gate_input, k) for k, (n, f) in enumerate(zip(GATES, FUNCTIONS, strict=True))}
        )
        self._gates = Gates([*self.gates.values()])
        self.tanh_c = Activation("tanh", cell_read)

    @torch.no_grad()
    def remember(self) -> None:
        """Start with a forget gate that is nearly open (Jozefowicz et al. 2015): long sequences are learned sooner."""
        self.w_x.bias_0[self.hidden_size : 2 * self.hidden_size] = 1.0

    @staticmethod
    def output_size(hidden_size: int, **options: Any) -> int:
        """That of h: the projection's where there is one."""
        return options.get("proj_size", 0) or hidden_size

    @classmethod
    def from_torch(cls, module: nn.RNNBase, layer: int, direction: int, *, hidden: QuantSite) -> LSTMCell:
        """See :meth:`Cell.from_torch`."""
        size = getattr(module, f"weight_ih_l{layer}").shape[1]
        cell = cls(size, module.hidden_size, bias=module.bias, norm=None, hidden=hidden, proj_size=module.proj_size)
        cell._load_torch(module, layer, direction)
        return cell

    @classmethod
    def fused(cls, cells: Sequence[Self]) -> Callable[..., Any] | None:
        """Both directions of plain cells in one time loop, ``irnn.nn.fast.exact_bilstm``."""
        if len(cells) != 2 or any(cell.w_r is not None for cell in cells):
            return None
        return partial(_both_directions, cells)

    def hoist(self, a: Executor[T], x: T) -> T:
        """W_x x + b."""
        pre = a.requantize(self.preactivation, a.linear(self.w_x, x))
        return pre if self.norm_x is None else a.norm(self.norm_x, self.norm_gates, pre)

    def step(self, a: Executor[T], pre: T, h: T, c: T, *, context: T | None = None) -> tuple[T, T, T]:
        """One time step -> (h, h, c): the output and the next states."""
        products = [a.linear(self.w_h, h)]
        if self.w_c is not None:
            assert context is not None  # a cell that reads one is given one
            products.append(a.linear(self.w_c, context))
        pre_h = a.requantize(self.preactivation, *products)
        if self.norm_h is not None:
            pre_h = a.norm(self.norm_h, self.norm_gates, pre_h)
        summed = a.add(self._gate_input[0], pre, pre_h)
        i, f, g, o = a.gates(self._gates, summed, a.split(summed, 4))
        c = a.requantize(self.cell, a.multiply(f, c), a.multiply(i, g))
        c_read = c if self.norm_c is None else a.norm(self.norm_c, self.norm_cell, c)
        product = a.multiply(o, a.activation(self.tanh_c, c_read))
        if self.w_r is not None and self.unprojected is not None:
            product = a.linear(self.w_r, a.requantize(self.unprojected, product))
        h = a.requantize(self._hidden[0], product)
        return h, h, c


def _both_directions(
    cells: Sequence[LSTMCell], x: Tensor, lengths: Tensor | None, states: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """``Executor.fused``'s layer: states are forward h, c, backward h, c."""
    pairs = [torch.stack([forward, backward]) for forward, backward in zip(states[:2], states[2:], strict=True)]
    w_x, w_h = ([getattr(cell, name) for cell in cells] for name in ("w_x", "w_h"))
    y, after = exact_bilstm(x, lengths, [w.weight for w in w_x], [w.bias for w in w_x], [w.weight for w in w_h], pairs)
    return y, [part[direction] for direction in (0, 1) for part in after]
