"""Layers and stacks of a recurrent cell: any number of layers, one direction or both, written once for all cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from irnn.errors import IrnnError
from irnn.nn.activation import Activation
from irnn.nn.cells import cell_class
from irnn.nn.cells.base import Cell
from irnn.nn.containers import ModuleDict, ModuleList
from irnn.nn.linear import Weight
from irnn.nn.norm import Norm
from irnn.nn.torch_interface.inputs import (
    RecurrentInput,
    State,
    check_dropout,
    check_format,
    check_sizes,
    check_switches,
    read_input,
)
from irnn.nn.torch_interface.parameters import TorchParameters
from irnn.quant.site import QuantSite
from irnn.wiring.executor import Executor, StateSpec
from irnn.wiring.simulate import Simulation

T = TypeVar("T")


class RecurrentLayer(nn.Module):
    """One layer, in one or both directions; the directions share the scale of h, so that they concatenate (iRNN)."""

    def __init__(
        self,
        cell: type[Cell],
        input_size: int,
        hidden_size: int,
        *,
        bias: bool,
        norm: str | None,
        bidirectional: bool,
        **options: Any,
    ) -> None:
        super().__init__()
        self.cell_class = cell
        self.hidden = cell.output_site(hidden_size, **options)
        names = ("forward_cell", "backward_cell") if bidirectional else ("forward_cell",)
        self.cells = ModuleDict(
            {n: cell(input_size, hidden_size, bias=bias, norm=norm, hidden=self.hidden, **options) for n in names}
        )

    def wire(self, a: Executor[T], x: T, name: str) -> T:
        """Sequence -> sequence of h (of both directions, concatenated)."""
        cells = list(self.cells.values())
        fused = self.cell_class.fused(cells) if real(self) else None
        if fused is not None:
            y = a.fused(fused, x, self.state_specs(name))
            if y is not None:
                return y
        outputs = [
            cell.finish(
                a,
                a.scan(cell.step, cell.hoist(a, x), states, reverse=direction == "backward_cell", whole=cell.whole()),
            )
            for (direction, cell), states in zip(self.cells.items(), self._states(name), strict=True)
        ]
        return outputs[0] if len(outputs) == 1 else a.concat(outputs)

    def _states(self, name: str) -> list[list[StateSpec]]:
        """Those of each direction."""
        return [
            cell.states(f"{name}_reverse" if direction == "backward_cell" else name)
            for direction, cell in self.cells.items()
        ]

    def state_specs(self, name: str) -> list[StateSpec]:
        """Every state, forward then backward."""
        return [spec for specs in self._states(name) for spec in specs]


def real(part: nn.Module) -> bool:
    """Whether a part computes with real numbers alone: nothing quantized or piecewise linear, no norm."""
    for module in part.modules():
        if isinstance(module, Norm) or (isinstance(module, Activation) and module.pieces is not None):
            return False
        if isinstance(module, (QuantSite, Weight)) and module.quantizing:
            return False
    return True


class Recurrent(TorchParameters):
    """A stack of layers of the cell ``cell`` (``irnn.nn.cells.CELLS``), called as torch's recurrent modules are.

    norm: None, "layer" (LayerNorm) or "mad" (a LayerNorm that becomes MadNorm in stage "pwl"); options: those of the
    cell (``Cell.OPTIONS``); all others are torch's.  What torch refuses, and states that do not fit a packed sequence,
    raise one line of :class:`IrnnError`.  ``forward`` takes and returns what torch's does; ``wire`` is the same network
    for any executor.

    Apart stand: a dtype is a floating-point one (torch's allows complex numbers); ``named_parameters`` and
    ``state_dict`` have names of this module, and ``isinstance(..., torch.nn.LSTM)`` is false.
    """

    # torch's own function of such a stack, which cuDNN and oneDNN stand behind, where there is one.
    KERNEL: ClassVar[Callable[..., Any] | None] = None

    layers: ModuleList[RecurrentLayer]

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        norm: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.cell = cell_class(cell)
        for option, value in options.items():
            if option not in self.cell.OPTIONS:
                known = ", ".join(self.cell.OPTIONS) or "none"
                raise IrnnError(f"{option}={value!r}: no option of the cell {cell!r}; it has {known}")
        num_layers, proj_size = check_sizes(
            self.cell.TITLE, input_size, hidden_size, num_layers, options.get("proj_size", 0)
        )
        check_switches(bias=bias, batch_first=batch_first, bidirectional=bidirectional)
        device, dtype = check_format(device, dtype)
        self.options = options | ({"proj_size": proj_size} if "proj_size" in options else {})
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.bidirectional, self.norm = bias, batch_first, bidirectional, norm
        self.dropout = check_dropout(dropout, num_layers)
        between = self.output_size
        with device:
            self.layers = ModuleList(
                RecurrentLayer(
                    self.cell,
                    between if k else input_size,
                    hidden_size,
                    bias=bias,
                    norm=norm,
                    bidirectional=bidirectional,
                    **self.options,
                )
                for k in range(num_layers)
            )
        self.to(dtype)

    def wire(self, a: Executor[T], x: T, name: str) -> T:
        """Sequence -> sequence, through all layers; ``name`` is that of its states."""
        return self.outputs(a, x, name)[-1]

    def outputs(self, a: Executor[T], x: T, name: str) -> list[T]:
        """As :meth:`wire`: the sequence of each layer, before the dropout between them."""
        found: list[T] = []
        for k, layer in enumerate(self.layers):
            if k:
                x = a.dropout(x, self.dropout)
            x = layer.wire(a, x, f"{name}.{k}")
            found.append(x)
        return found

    @property
    def output_size(self) -> int:
        """Elements of the output, of both directions together."""
        return self.cell.output_size(self.hidden_size, **self.options) * (2 if self.bidirectional else 1)

    def state_specs(self, name: str) -> list[StateSpec]:
        """Every state, in torch's order: layer by layer, forward then backward."""
        return [spec for k, layer in enumerate(self.layers) for spec in layer.state_specs(f"{name}.{k}")]

    def state_sizes(self) -> dict[str, int]:
        """The size of each of a cell's states, by the cell's name of it."""
        return {spec.name.rpartition(".")[2]: spec.size for spec in self.layers[0].cells["forward_cell"].states("")}

    def forward(self, input: Tensor | PackedSequence, hx: State | None = None) -> tuple[Tensor | PackedSequence, State]:
        """As torch's: (h sequence, last state), in the input's own form.

        input ``[time, batch, input]`` (or batch first), ``[time, input]`` or packed; hx: (h0, c0), of a cell with one
        state h0, zeros by default.  Raises :class:`IrnnError`, one line, for an input or a state of another shape,
        dtype or device.
        """
        given = read_input(self, input, hx)
        kernel = type(self).KERNEL
        if kernel is None or self._observing or not real(self):
            y, state = self._wired_forward(given)
        else:
            y, state = self._exact_forward(kernel, given)
        return given.give_back(y, state)

    @property
    def _observing(self) -> bool:
        return self.training and any(m.observing for m in self.modules() if isinstance(m, QuantSite))

    def _exact_forward(self, kernel: Callable[..., Any], given: RecurrentInput) -> tuple[Tensor, tuple[Tensor, ...]]:
        """By torch's kernel, which has second derivatives too."""
        options = (
            self._flat_weights, self.bias, self.num_layers, self.dropout, self.training, self.bidirectional,
        )  # fmt: skip
        state = given.state if len(given.state) > 1 else given.state[0]
        if given.packed is None:
            y, *after = kernel(given.x, state, *options, False)
        else:
            y, *after = kernel(given.x, given.packed.batch_sizes, state, *options)
        return y, tuple(after)

    def _wired_forward(self, given: RecurrentInput) -> tuple[Tensor, tuple[Tensor, ...]]:
        """By the wiring: quantized, normalized, piecewise linear or observed."""
        x, lengths = given.x, None
        if given.packed is not None:
            x, lengths = pad_packed_sequence(PackedSequence(given.x, given.packed.batch_sizes))
        names, count = [spec.name for spec in self.state_specs("")], len(given.state)
        start = {name: given.state[k % count][k // count] for k, name in enumerate(names)}
        observing = self.training and x.numel() > 0
        simulation = Simulation(start, training=self.training, observing=observing)
        simulation.ragged(None if lengths is None else lengths.to(x.device))
        y = self.wire(simulation, x, "")
        simulation.finish()
        state = tuple(torch.stack([simulation.state[name] for name in names[k::count]]) for k in range(count))
        return (y if lengths is None else pack_padded_sequence(y, lengths).data), state
