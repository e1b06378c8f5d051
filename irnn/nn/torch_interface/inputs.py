"""What torch's recurrent modules take, checked: their arguments, and their inputs in every form that they take.

torch refuses some with a page of text and lets others pass (a packed sequence's state is not checked at all: a c of one
sequence is broadcast, one of too few layers is read beyond its end); here each is one line.
"""

from __future__ import annotations

import numbers
import operator
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from irnn.errors import IrnnError
from irnn.nn.torch_interface.parameters import TorchParameters

State = Tensor | tuple[Tensor, ...]  # a cell of several states has a tuple
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
AUTOCAST_FLOATS = FLOATS[:3]  # what autocast converts into each other


def check_sizes(mode: str, input_size: Any, hidden_size: Any, num_layers: Any, proj_size: Any) -> tuple[int, int]:
    """(num_layers, proj_size) as Python's integers; raises one line for a size that no such module has."""
    for name, value in (("input_size", input_size), ("hidden_size", hidden_size)):
        if not isinstance(value, int):
            raise IrnnError(f"{name}={value!r}: must be a Python int, at least 1")
    num_layers, proj_size = _whole("num_layers", num_layers), _whole("proj_size", proj_size)
    if min(input_size, hidden_size, num_layers) < 1:
        raise IrnnError(f"{mode} sizes must be positive, not {input_size=}, {hidden_size=}, {num_layers=}")
    if not 0 <= proj_size < hidden_size:
        raise IrnnError(f"{proj_size=}: must be less than {hidden_size=}, or 0 for no projection")
    return num_layers, proj_size


def _whole(name: str, value: Any) -> int:
    if not isinstance(value, bool) and hasattr(value, "__index__"):
        return operator.index(value)
    if isinstance(value, bool | float) and value == 0:  # torch takes 0.0 and False for "no projection"
        return 0
    raise IrnnError(f"{name}={value!r}: must be a whole number")


def check_switches(**switches: Any) -> None:
    """Raise one line for a switch that is no bool."""
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise IrnnError(f"{name}={value!r}: must be True or False")


def check_dropout(dropout: Any, num_layers: int) -> float:
    """The probability as a float; raises one line for any other thing, warns where it has no effect."""
    number = isinstance(dropout, numbers.Number) and not isinstance(dropout, bool)
    if isinstance(dropout, numbers.Complex) and not isinstance(dropout, numbers.Real):
        number = False
    if not number or not 0 <= dropout <= 1:
        raise IrnnError(f"dropout={dropout!r}: must be a number in [0, 1], the probability of a zero")
    if dropout > 0 and num_layers == 1:
        warnings.warn(
            f"dropout={dropout} stands between layers and num_layers=1: it has no effect; add a layer or leave it out",
            stacklevel=4,  # a drop-in stands between
        )
    return float(dropout)


def check_format(device: Any, dtype: Any) -> tuple[torch.device, torch.dtype]:
    """The device and dtype that parameters will have; raises one line for what is no such thing or not there."""
    try:
        probe = torch.empty(0, device=device, dtype=dtype)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise IrnnError(f"device={device!r}, dtype={dtype!r}: no parameters can be made so: {reason}") from error
    if probe.dtype not in FLOATS:
        names = ", ".join(str(kind) for kind in FLOATS)
        raise IrnnError(f"dtype={dtype!r}: allowed are {names}")
    return probe.device, probe.dtype


@dataclass(frozen=True)
class RecurrentInput:
    """Checked input: ``x [time, batch, size]``, or the data of ``packed`` ``[elements, size]``; states 3-D.

    The sequences of a packed input, and its states, are in the order of falling lengths.
    """

    x: Tensor
    state: tuple[Tensor, ...]
    packed: PackedSequence | None
    batched: bool
    batch_first: bool

    def give_back(self, y: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor | PackedSequence, State]:
        """Output and last state in the form in which the input came."""
        output, after = self._formed(y, state)
        return output, after if len(after) > 1 else after[0]

    def _formed(self, y: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor | PackedSequence, tuple[Tensor, ...]]:
        if self.packed is not None:
            _, batch_sizes, order, inverse = self.packed
            if inverse is not None:
                state = tuple(part.index_select(1, inverse) for part in state)
            return PackedSequence(y, batch_sizes, order, inverse), state
        if not self.batched:
            return y.squeeze(1), tuple(part.squeeze(1) for part in state)
        return y.transpose(0, 1) if self.batch_first else y, state


def read_input(rnn: TorchParameters, given: Any, state: Any) -> RecurrentInput:
    """Check ``given`` and ``state`` (None: zeros) against the module; raises one line for what does not fit."""
    packed = given if isinstance(given, PackedSequence) else None
    x = given if packed is None else packed.data
    if not isinstance(x, Tensor):
        raise IrnnError(f"input is a {type(given).__name__}; {rnn.mode} takes a torch.Tensor or a PackedSequence")
    allowed = (2,) if packed is not None else (2, 3)
    if x.dim() not in allowed or x.shape[-1] != rnn.input_size:
        order = "batch, time" if rnn.batch_first else "time, batch"
        kinds = f"[{order}, {rnn.input_size}] or [time, {rnn.input_size}]"
        kind = kinds if packed is None else f"packed data [elements, {rnn.input_size}]"
        raise IrnnError(f"input has the shape {list(x.shape)}; this {rnn.mode} takes {kind}")
    _check_format(rnn, "input", x)
    batched = packed is not None or x.dim() == 3
    if packed is None:
        x = x.unsqueeze(1) if not batched else x.transpose(0, 1) if rnn.batch_first else x
        if not len(x):
            raise IrnnError(f"input has the shape {list(given.shape)}: no time step; give at least one")
    batch = x.shape[1] if packed is None else int(packed.batch_sizes[0])
    state = _read_state(rnn, state, x, batch, batched)
    if packed is not None and packed.sorted_indices is not None:
        state = tuple(part.index_select(1, packed.sorted_indices) for part in state)
    return RecurrentInput(x, state, packed, batched, rnn.batch_first)


def _read_state(rnn: TorchParameters, state: Any, x: Tensor, batch: int, batched: bool) -> tuple[Tensor, ...]:
    """(h0, c0), or what the cell has, each ``[layers * directions, batch, size]``."""
    cells = rnn.num_layers * (2 if rnn.bidirectional else 1)
    sizes = {f"{key}0": size for key, size in rnn.state_sizes().items()}
    if state is None:
        return tuple(x.new_zeros(cells, batch, size) for size in sizes.values())
    parts = _state_parts(rnn.mode, list(sizes), state)
    for part, (name, size) in zip(parts, sizes.items(), strict=True):
        shape = [cells, batch, size] if batched else [cells, size]
        if list(part.shape) != shape:
            axes = "layers * directions, batch, size" if batched else "layers * directions, size"
            raise IrnnError(f"{name} has the shape {list(part.shape)}; for this input it is {shape}: [{axes}]")
        _check_format(rnn, name, part)
    return parts if batched else tuple(part.unsqueeze(1) for part in parts)


def _state_parts(mode: str, names: list[str], state: Any) -> tuple[Tensor, ...]:
    """The tensors of a state: a tuple of them, or the one that there is."""
    parts = tuple(state) if isinstance(state, tuple | list) else (state,)
    bare = len(names) == 1
    if (
        bare == isinstance(state, tuple | list)
        or len(parts) != len(names)
        or not all(isinstance(part, Tensor) for part in parts)
    ):
        inside = f" of {[type(part).__name__ for part in parts]}" if isinstance(state, tuple | list) else ""
        wanted = f"one tensor, {names[0]}" if bare else f"{len(names)} tensors, ({', '.join(names)})"
        raise IrnnError(f"the state is a {type(state).__name__}{inside}; {mode} takes {wanted}")
    return parts


def _check_format(rnn: TorchParameters, name: str, x: Tensor) -> None:
    """Raise one line for a tensor that is not where the weights are or not what they are."""
    weight = next(rnn.parameters())
    if x.device != weight.device:
        raise IrnnError(f"{name} is on {x.device}, the {rnn.mode} on {weight.device}; move one of them with .to(...)")
    if x.dtype == weight.dtype:
        return
    mixed = torch.is_autocast_enabled(weight.device.type) and {x.dtype, weight.dtype} <= {*AUTOCAST_FLOATS}
    if not mixed:
        other = f" or module.to({x.dtype})" if x.dtype in FLOATS else ""
        raise IrnnError(
            f"{name} is {x.dtype}, the {rnn.mode} {weight.dtype}; convert: {name}.to({weight.dtype}){other}"
        )
