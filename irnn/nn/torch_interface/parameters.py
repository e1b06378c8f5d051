"""What users of torch's recurrent modules touch beside calling them: parameters by torch's names, loading and reset.

The parameters lie where the wiring has them (``layers.0.cells.forward_cell.w_x.weight``), and ``named_parameters`` and
``state_dict`` name them so; as attributes they have torch's names too (``weight_ih_l0``): the same objects.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from irnn.errors import IrnnError
from irnn.nn.cells.base import Cell
from irnn.nn.norm import MAD_OF_GAUSSIAN, Norm
from irnn.nn.torch_interface.state_dicts import check_fit, saved_buffers, unwrapped
from irnn.quant.site import QuantSite

TORCH_NAME = re.compile(r"(weight_ih|weight_hh|bias_ih|bias_hh|weight_hr)_l\d+(_reverse)?")


class TorchParameters(nn.Module):
    """Base of :class:`irnn.nn.recurrent.Recurrent`, which sets the attributes and makes ``layers``."""

    cell: type[Cell]
    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    norm: str | None
    options: dict[str, Any]
    layers: nn.ModuleList

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(_read_state_dict)

    @property
    def mode(self) -> str:
        """What torch calls the cell."""
        return self.cell.TITLE

    @property
    def proj_size(self) -> int:
        """Size of the projection of h; 0: there is none."""
        return self.options.get("proj_size", 0)

    def torch_names(self) -> dict[str, str]:
        """Torch's name of each parameter that torch has, in torch's order -> its name in this module."""
        absent = (*(() if self.bias else ("bias_ih", "bias_hh")), *(() if self.proj_size else ("weight_hr",)))
        parts = {name: own for name, own in self.cell.TORCH_PARAMETERS.items() if name not in absent}
        directions = {"": "forward_cell"} | ({"_reverse": "backward_cell"} if self.bidirectional else {})
        return {
            f"{part}_l{k}{suffix}": f"layers.{k}.cells.{cell}.{own}"
            for k in range(self.num_layers)
            for suffix, cell in directions.items()
            for part, own in parts.items()
        }

    def _place(self, name: str) -> tuple[nn.Module, str] | None:
        """(module, attribute) of the parameter with torch's name ``name``."""
        # While a copy is being unpickled nothing is there yet.
        if not TORCH_NAME.fullmatch(name) or "layers" not in self.__dict__.get("_modules", ()):
            return None
        own = self.torch_names().get(name)
        if own is None:
            return None
        path, _, attribute = own.rpartition(".")
        return self.get_submodule(path), attribute

    def __getattr__(self, name: str) -> Any:
        place = self._place(name)
        return super().__getattr__(name) if place is None else getattr(*place)

    def __setattr__(self, name: str, value: Any) -> None:
        place = self._place(name)
        if place is None:
            super().__setattr__(name, value)
            return
        shape = getattr(*place).shape
        if not isinstance(value, nn.Parameter) or value.shape != shape:
            kind = list(value.shape) if isinstance(value, nn.Parameter) else type(value).__name__
            raise IrnnError(f"{name} is a torch.nn.Parameter {list(shape)}, not {kind}; new values go into {name}.data")
        setattr(*place, value)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.torch_names()]

    @property
    def _flat_weights_names(self) -> list[str]:
        return list(self.torch_names())

    @property
    def _flat_weights(self) -> list[nn.Parameter]:
        return [getattr(self, name) for name in self.torch_names()]

    @property
    def all_weights(self) -> list[list[nn.Parameter]]:
        """The parameters of each direction of each layer, in torch's order."""
        flat = self._flat_weights
        size = 2 + 2 * self.bias + bool(self.proj_size)
        return [flat[k : k + size] for k in range(0, len(flat), size)]

    def reset_parameters(self) -> None:
        """Draw torch's parameters anew, as torch does and in its order; norms start where they started.

        Observed ranges are forgotten: they were those of the former weights (or memory from ``to_empty``).
        """
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self._flat_weights:
            nn.init.uniform_(parameter, -bound, bound)
        for module in self.modules():
            if isinstance(module, Norm):
                nn.init.constant_(module.weight, MAD_OF_GAUSSIAN if module.kind == "mad" else 1.0)
                nn.init.zeros_(module.bias)
            elif isinstance(module, QuantSite):
                nn.init.constant_(module.observed_min, math.nan)
                nn.init.constant_(module.observed_max, math.nan)

    def flatten_parameters(self) -> None:
        """On CUDA, lay the parameters into one piece of memory, which cuDNN is faster with; elsewhere do nothing."""
        weights: list[Tensor] = [*self._flat_weights]
        usable = bool(weights) and all(
            w.is_cuda and w.dtype == weights[0].dtype and torch.backends.cudnn.is_acceptable(w) for w in weights
        )
        if not usable or len({w.data_ptr() for w in weights}) < len(weights):
            return
        with torch.cuda.device_of(weights[0]), torch.no_grad():
            torch._cudnn_rnn_flatten_weight(
                weights,
                len(self.all_weights[0]),
                self.input_size,
                torch.backends.cudnn.rnn.get_cudnn_mode(self.mode),
                self.hidden_size,
                self.proj_size,
                self.num_layers,
                self.batch_first,
                self.bidirectional,
            )

    def _apply(self, fn: Any, recurse: bool = True) -> TorchParameters:
        """``to``, ``cuda`` and their kin: parameters that moved have to be laid together again."""
        super()._apply(fn, recurse)
        self.flatten_parameters()
        return self

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As ``nn.Module.load_state_dict``, of torch's module or of this one, wrapped or not.

        Raises one line of :class:`IrnnError` for entries that do not fit.
        """
        self.own_entries(state_dict, strict=strict)
        return super().load_state_dict(state_dict, strict, assign)

    def own_entries(self, state_dict: Mapping[str, Any], *, strict: bool) -> dict[str, Any]:
        """The entries under this module's names; raises one line for those of another module.

        Without ``strict`` entries may be missing or unknown; their shapes always count.
        """
        entries = unwrapped(state_dict)
        every = (*self.named_parameters(remove_duplicate=False), *saved_buffers(self))
        shapes = {own: value.shape for own, value in every}
        names = {own: own for own in shapes}
        if any(TORCH_NAME.fullmatch(name) for name in entries):
            names |= {own: name for name, own in self.torch_names().items()}
            for own, buffer in saved_buffers(self):  # torch's module has observed nothing
                entries.setdefault(own, buffer)
        check_fit(
            f"{self.mode}({self.extra_repr()})",
            {names[own]: shape for own, shape in shapes.items()},
            entries,
            strict=strict,
            mend=f"give the {self.mode} the sizes, layers and directions of the one that was saved",
        )
        own_names = {name: own for own, name in names.items()}
        return {own_names.get(name, name): value for name, value in entries.items()}

    def extra_repr(self) -> str:
        """The sizes, and every other argument that is not the default, as torch prints them."""
        defaults = {
            "proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0, "bidirectional": False,
            "norm": None,
        }  # fmt: skip
        values = {name: getattr(self, name) for name in defaults}
        given = [f"{name}={value}" for name, value in values.items() if value != defaults[name]]
        return ", ".join([f"{self.input_size}, {self.hidden_size}", *given])


def _read_state_dict(module: TorchParameters, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    """Bring the module's entries under its own names before they are loaded, alone or as a part of a network.

    Whether entries may be missing or unknown is not said here: :meth:`TorchParameters.load_state_dict` checks that.
    """
    given = [key for key in state_dict if key.startswith(prefix)]
    entries = module.own_entries({key.removeprefix(prefix): state_dict.pop(key) for key in given}, strict=False)
    state_dict.update({prefix + name: value for name, value in entries.items()})
