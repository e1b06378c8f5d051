"""Layers and stacks of a recurrent cell."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from irnn.nn.cells.lstm import LSTMCell
from irnn.nn.fast.exact_bilstm import exact_bilstm
from irnn.nn.lstm_inputs import (
    LSTMInput,
    State,
    check_dropout,
    check_format,
    check_sizes,
    check_switches,
    read_input,
)
from irnn.nn.torch_lstm import TorchLSTM
from irnn.quant.site import QuantSite
from irnn.wiring.simulate import Simulation


class LSTMLayer(nn.Module):
    """One layer, in one or both directions; the directions share the scale of h, so that they concatenate (iRNN)."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool,
        norm: str | None,
        bidirectional: bool,
        proj_size: int = 0,
    ) -> None:
        super().__init__()
        self.hidden = QuantSite("hidden", proj_size or hidden_size)
        names = ("forward_cell", "backward_cell") if bidirectional else ("forward_cell",)
        self.cells = nn.ModuleDict(
            {
                n: LSTMCell(input_size, hidden_size, bias=bias, norm=norm, hidden=self.hidden, proj_size=proj_size)
                for n in names
            }
        )

    def wire(self, a: Any, x: Any, name: str) -> Any:
        """Sequence -> sequence of h (of both directions, concatenated)."""
        cells = self.cells.values()
        plain = all(cell.exact and cell.w_r is None for cell in cells)
        if len(cells) == 2 and isinstance(a, Simulation) and not a.observing and plain:
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


class LSTM(TorchLSTM):
    """Drop-in for ``torch.nn.LSTM``: same arguments, inputs, attributes, state_dict and results, and quantizable.

    norm: None, "layer" (LayerNorm) or "mad" (a LayerNorm that becomes MadNorm in stage "pwl"); all others are torch's.
    What torch refuses, and states that do not fit a packed sequence, raise one line of :class:`IrnnError`.
    ``forward(x, (h0, c0))`` takes and returns what torch's does; ``wire`` is the same network for any executor.

    Apart stand: a dtype is a floating-point one (torch's allows complex numbers); ``named_parameters`` and
    ``state_dict`` have names of this module, and ``isinstance(..., torch.nn.LSTM)`` is false.
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
        proj_size: int = 0,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        norm: str | None = None,
    ) -> None:
        super().__init__()
        num_layers, proj_size = check_sizes(input_size, hidden_size, num_layers, proj_size)
        check_switches(bias=bias, batch_first=batch_first, bidirectional=bidirectional)
        device, dtype = check_format(device, dtype)
        self.input_size, self.hidden_size, self.num_layers, self.proj_size = (
            input_size, hidden_size, num_layers, proj_size,
        )  # fmt: skip
        self.bias, self.batch_first, self.bidirectional, self.norm = bias, batch_first, bidirectional, norm
        self.dropout = check_dropout(dropout, num_layers)
        directions = 2 if bidirectional else 1
        with device:
            self.layers = nn.ModuleList(
                LSTMLayer(
                    input_size if k == 0 else (proj_size or hidden_size) * directions,
                    hidden_size,
                    bias=bias,
                    norm=norm,
                    bidirectional=bidirectional,
                    proj_size=proj_size,
                )
                for k in range(num_layers)
            )
        self.to(dtype)

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

    def forward(self, input: Tensor | PackedSequence, hx: State | None = None) -> tuple[Tensor | PackedSequence, State]:
        """As ``torch.nn.LSTM``: (h sequence, (h_n, c_n)), in the input's own form.

        input ``[time, batch, input]`` (or batch first), ``[time, input]`` or packed; hx: (h0, c0), zeros by default.
        Raises :class:`IrnnError`, one line, for an input or a state of another shape, dtype or device.
        """
        given = read_input(self, input, hx)
        y, state = self._exact_forward(given) if self._exact else self._wired_forward(given)
        return given.give_back(y, state)

    @property
    def _exact(self) -> bool:
        """Whether a forward pass is torch's own: real numbers alone, and no observer to see them."""
        cells = [cell for layer in self.layers for cell in layer.cells.values()]
        observing = self.training and any(m.observing for m in self.modules() if isinstance(m, QuantSite))
        return not observing and all(cell.exact for cell in cells)

    def _exact_forward(self, given: LSTMInput) -> tuple[Tensor, State]:
        """By torch's kernel, which cuDNN and oneDNN stand behind, and second derivatives."""
        options = (
            self._flat_weights, self.bias, self.num_layers, self.dropout, self.training, self.bidirectional,
        )  # fmt: skip
        if given.packed is None:
            y, *state = torch.lstm(given.x, given.state, *options, False)
        else:
            y, *state = torch.lstm(given.x, given.packed.batch_sizes, given.state, *options)
        return y, tuple(state)

    def _wired_forward(self, given: LSTMInput) -> tuple[Tensor, State]:
        """By the wiring: quantized, normalized, piecewise linear or observed."""
        x, lengths = given.x, None
        if given.packed is not None:
            x, lengths = pad_packed_sequence(PackedSequence(given.x, given.packed.batch_sizes))
        names = [name for name, _, _ in self.state_specs()]
        start = {name: given.state[k % 2][k // 2] for k, name in enumerate(names)}
        observing = self.training and x.numel() > 0
        simulation = Simulation(start, training=self.training, observing=observing)
        simulation.ragged(None if lengths is None else lengths.to(x.device))
        y = self.wire(simulation, x)
        simulation.finish()
        h_n, c_n = (torch.stack([simulation.state[name] for name in names[k::2]]) for k in (0, 1))
        return (y if lengths is None else pack_padded_sequence(y, lengths).data), (h_n, c_n)
