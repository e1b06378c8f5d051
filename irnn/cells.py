"""LSTM with explicit gates and every quantization site named; the wiring stands here once, for every executor.

``torch.nn.LSTM``'s parameters load as they are (gate order i, f, g, o; two biases), and with no norm and no
quantization the two are equal.  The layer-normalized LSTM normalizes W_x x and W_h h of each gate and c (Hou et al.,
NeurIPS 2019; iRNN).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from irnn.errors import IrnnError
from irnn.exact_bilstm import exact_bilstm
from irnn.layers import Activation, Linear, Norm
from irnn.quantizers import QuantSite
from irnn.simulation import Simulation

GATES = ("i", "f", "g", "o")
FUNCTIONS = ("sigmoid", "sigmoid", "tanh", "sigmoid")


class LSTMCell(nn.Module):
    """One direction of one layer: weights, norms, activations, sites.

    Shapes: W_x ``[4 hidden, input]``, W_h ``[4 hidden, hidden]``, in the gate order i, f, g, o.  With
    ``context_size`` each step has a second input, W_c ``[4 hidden, context]`` (input feeding of a context vector).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool,
        norm: str | None,
        hidden: QuantSite,
        context_size: int | None = None,
    ) -> None:
        super().__init__()
        rows = 4 * hidden_size
        bound = 1 / math.sqrt(hidden_size)

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))

        self.hidden_size = hidden_size
        biases = (parameter(rows), parameter(rows)) if bias else ()
        self.w_x = Linear(parameter(rows, input_size), biases)
        self.w_h = Linear(parameter(rows, hidden_size), recurrent=True)
        self.w_c = None if context_size is None else Linear(parameter(rows, context_size))
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
        self.gates = nn.ModuleDict(
            {n: Activation(f, gate_input, k) for k, (n, f) in enumerate(zip(GATES, FUNCTIONS, strict=True))}
        )
        self.tanh_c = Activation("tanh", cell_read)

    @torch.no_grad()
    def remember(self) -> None:
        """Start with a forget gate that is nearly open (Jozefowicz et al. 2015): long sequences are learned sooner."""
        self.w_x.bias_0[self.hidden_size : 2 * self.hidden_size] = 1.0

    @property
    def exact(self) -> bool:
        """Whether this is a plain LSTM of real numbers: nothing quantized or piecewise linear, no norm, no context."""
        sites = (self._hidden[0], self.preactivation, self.cell, self._gate_input[0])
        tables = (self.tanh_c, *self.gates.values())
        plain = self.norm_x is None and self.w_c is None
        return plain and not any(site.quantizing for site in sites) and all(table.pieces is None for table in tables)

    def input_product(self, a: Any, x: Any) -> Any:
        """W_x x + b for a whole sequence: it needs no state, so it stands outside the time loop."""
        pre = a.requantize(self.preactivation, a.linear(self.w_x, x))
        return pre if self.norm_x is None else a.norm(self.norm_x, self.norm_gates, pre)

    def step(self, a: Any, pre_x: Any, h: Any, c: Any, context: Any = None) -> tuple[Any, Any, Any]:
        """One time step -> (h, h, c): the output and the next states."""
        products = [a.linear(self.w_h, h)]
        if self.w_c is not None:
            products.append(a.linear(self.w_c, context))
        pre_h = a.requantize(self.preactivation, *products)
        if self.norm_h is not None:
            pre_h = a.norm(self.norm_h, self.norm_gates, pre_h)
        parts = a.split(a.add(self._gate_input[0], pre_x, pre_h), 4)
        i, f, g, o = (a.activation(self.gates[name], part) for name, part in zip(GATES, parts, strict=True))
        c = a.requantize(self.cell, a.multiply(f, c), a.multiply(i, g))
        c_read = c if self.norm_c is None else a.norm(self.norm_c, self.norm_cell, c)
        h = a.requantize(self._hidden[0], a.multiply(o, a.activation(self.tanh_c, c_read)))
        return h, h, c

    def states(self, name: str) -> list[tuple[str, int, QuantSite]]:
        """(name, size, site) of the two states."""
        return [
            (f"{name}.h", self.hidden_size, self._hidden[0]),
            (f"{name}.c", self.hidden_size, self.cell),
        ]


class LSTMLayer(nn.Module):
    """One layer, in one or both directions; the directions share the scale of h, so that they concatenate (iRNN)."""

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool, norm: str | None, bidirectional: bool) -> None:
        super().__init__()
        self.hidden = QuantSite("hidden", hidden_size)
        names = ("forward_cell", "backward_cell") if bidirectional else ("forward_cell",)
        self.cells = nn.ModuleDict(
            {n: LSTMCell(input_size, hidden_size, bias=bias, norm=norm, hidden=self.hidden) for n in names}
        )

    def wire(self, a: Any, x: Any, name: str) -> Any:
        """Sequence -> sequence of h (of both directions, concatenated)."""
        cells = self.cells.values()
        if len(cells) == 2 and isinstance(a, Simulation) and not a.observing and all(cell.exact for cell in cells):
            return self._exact(a, x, name)
        outputs = []
        for direction, cell in self.cells.items():
            reverse = direction == "backward_cell"
            states = cell.states(f"{name}_reverse" if reverse else name)
            outputs.append(a.scan(cell.step, cell.input_product(a, x), states, reverse=reverse))
        return outputs[0] if len(outputs) == 1 else a.concat(outputs)

    def _exact(self, a: Simulation, x: Tensor, name: str) -> Tensor:
        """``wire`` for both directions of exact cells at once."""
        cells = list(self.cells.values())
        names = [[f"{prefix}.{part}" for prefix in (name, f"{name}_reverse")] for part in ("h", "c")]
        y, after = exact_bilstm(
            x,
            a.lengths,
            [a.weight(cell.w_x) for cell in cells],
            [cell.w_x.bias for cell in cells],
            [a.weight(cell.w_h) for cell in cells],
            [torch.stack([a.state[key] for key in pair]) for pair in names],
        )
        for pair, values in zip(names, after, strict=True):
            a.state.update(zip(pair, values, strict=True))
        return y


class LSTM(nn.Module):
    """Drop-in for ``torch.nn.LSTM`` (same arguments, same state_dict, same results), ready for quantization.

    norm: None, "layer" (LayerNorm) or "mad" (a LayerNorm that becomes MadNorm in stage "pwl").
    ``forward(x, (h0, c0))`` takes and returns what torch's does; ``wire`` is the same network for any executor.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        norm: str | None = None,
    ) -> None:
        super().__init__()
        if min(input_size, hidden_size, num_layers) < 1:
            raise IrnnError(f"LSTM sizes must be positive, not {input_size=}, {hidden_size=}, {num_layers=}")
        self.hidden_size = hidden_size
        self.batch_first = batch_first
        self.dropout = dropout
        self.directions = 2 if bidirectional else 1
        self.layers = nn.ModuleList(
            LSTMLayer(
                input_size if k == 0 else hidden_size * self.directions,
                hidden_size,
                bias=bias,
                norm=norm,
                bidirectional=bidirectional,
            )
            for k in range(num_layers)
        )
        self.register_load_state_dict_pre_hook(_translate_torch_names)

    def wire(self, a: Any, x: Any, name: str = "lstm") -> Any:
        """Sequence -> sequence, through all layers."""
        for k, layer in enumerate(self.layers):
            if k:
                x = a.dropout(x, self.dropout)
            x = layer.wire(a, x, f"{name}.{k}")
        return x

    def state_specs(self, name: str = "lstm") -> list[tuple[str, int, QuantSite]]:
        """(name, size, site) of every state, in torch's order: layer by layer, forward then backward."""
        return [
            spec
            for k, layer in enumerate(self.layers)
            for direction, cell in layer.cells.items()
            for spec in cell.states(f"{name}.{k}_reverse" if direction == "backward_cell" else f"{name}.{k}")
        ]

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """As ``torch.nn.LSTM``: x ``[time, batch, input]`` (or batch first) -> (h sequence, (h_n, c_n))."""
        if self.batch_first:
            x = x.transpose(0, 1)
        names = [name for name, _, _ in self.state_specs()]
        if state is None:
            zeros = x.new_zeros(len(names) // 2, x.shape[1], self.hidden_size)
            state = (zeros, zeros)
        start = {name: state[k % 2][k // 2] for k, name in enumerate(names)}
        simulation = Simulation(start, training=self.training, observing=self.training)
        y = self.wire(simulation, x)
        simulation.finish()
        h_n, c_n = (torch.stack([simulation.state[name] for name in names[k::2]]) for k in (0, 1))
        return (y.transpose(0, 1) if self.batch_first else y), (h_n, c_n)


def _translate_torch_names(module: LSTM, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    """``weight_ih_l0_reverse`` and its kin, where present, to this module's names."""
    targets = {"weight_ih": "w_x.weight", "weight_hh": "w_h.weight", "bias_ih": "w_x.bias_0", "bias_hh": "w_x.bias_1"}
    if f"{prefix}weight_ih_l0" not in state_dict:
        return
    for k in range(len(module.layers)):
        for suffix, cell in (("", "forward_cell"), ("_reverse", "backward_cell")):
            for source, target in targets.items():
                key = f"{prefix}{source}_l{k}{suffix}"
                if key in state_dict:
                    state_dict[f"{prefix}layers.{k}.cells.{cell}.{target}"] = state_dict.pop(key)
    for name, ranges in module.named_buffers():  # torch's module has observed nothing
        state_dict.setdefault(prefix + name, ranges)
