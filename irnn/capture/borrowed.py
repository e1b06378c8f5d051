"""The network's own parameters as parts of a wiring: nothing is copied, an optimizer made before still trains them.

A part holds the network and a path, and looks its parameters up whenever it is read: replaced, assigned or parametrized
ones are seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from irnn.nn.cells import cell_class
from irnn.nn.linear import Weight
from irnn.nn.norm import MAD_OF_GAUSSIAN, Norm
from irnn.nn.recurrent import RecurrentLayer
from irnn.quant.site import QuantSite


class Borrowed:
    """A network, held without being registered as a part of what holds it."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def find(self, path: str) -> Tensor:
        """A parameter or buffer by its path."""
        owner, _, name = path.rpartition(".")
        tensor = getattr(self.network.get_submodule(owner), name)
        assert isinstance(tensor, Tensor)  # it was one when the network was captured
        return tensor


class BorrowedLinear(Weight):
    """A matrix and any number of biases, by their paths; ``columns``: the place of each column in the network's own."""

    def __init__(
        self,
        source: Borrowed,
        weight: str,
        biases: tuple[str, ...] = (),
        role: str = "weight",
        *,
        recurrent: bool = False,
        reads_hidden: bool = False,
        columns: list[int] | None = None,
        turned: bool = False,
    ) -> None:
        super().__init__(role)
        self._turned = turned
        self._source, self._weight, self._biases, self._columns = source, weight, biases, columns
        self._recurrent = recurrent
        self.reads_hidden |= reads_hidden

    @property
    def recurrent(self) -> bool:  # type: ignore[override]
        """Whether x is a state."""
        return self._recurrent

    @property
    def weight(self) -> Tensor:
        """``[rows, columns]``."""
        weight = self._source.find(self._weight)
        if weight.dim() == 1:  # of one score
            weight = weight[None]
        elif self._turned:
            weight = weight.T
        return weight if self._columns is None else weight[:, self._columns]

    @property
    def bias(self) -> Tensor | None:
        """Sum of the biases."""
        found = [self._source.find(path) for path in self._biases]
        return sum(found[1:], found[0]) if found else None

    @property
    def identity(self) -> int:
        weight = self._source.find(self._weight)
        # A parametrized one is computed anew at each look.
        own = id(weight) if isinstance(weight, nn.Parameter) else hash((id(self._source.network), self._weight))
        own = hash((own, "turned")) if self._turned else own
        return own if self._columns is None else hash((own, *self._columns))


class BorrowedEmbedding(BorrowedLinear):
    """A table ``[vocabulary, size]``."""

    def __init__(self, source: Borrowed, weight: str) -> None:
        super().__init__(source, weight, role="embedding")


class BorrowedNorm(Norm):
    """``nn.LayerNorm`` over the last axis, as it is or as the MadNorm that it becomes in stage "pwl"."""

    def __init__(
        self, source: Borrowed, size: int, weight: str | None, bias: str | None, epsilon: float, kind: str
    ) -> None:
        nn.Module.__init__(self)
        self.where, self.target_kind, self.kind, self.size, self.groups = "a norm", kind, "layer", size, 1
        self.EPSILON = epsilon
        self._source, self._weight, self._bias = source, weight, bias

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """Of a norm without one: ones, or what a MadNorm has in their place."""
        if self._weight is not None:
            return self._source.find(self._weight)
        parameter = next(self._source.network.parameters())
        return parameter.new_full((self.size,), MAD_OF_GAUSSIAN if self.kind == "mad" else 1.0)

    @property
    def bias(self) -> Tensor:  # type: ignore[override]
        """Of a norm without one zeros."""
        return torch.zeros_like(self.weight) if self._bias is None else self._source.find(self._bias)

    @torch.no_grad()
    def become_mad(self) -> None:
        """See :class:`Norm`."""
        if self.kind == "layer" and self._weight is not None:
            self._source.find(self._weight).mul_(MAD_OF_GAUSSIAN)
        self.kind = "mad"


@dataclass(frozen=True)
class Facts:
    """What a recurrent module of torch or irnn is; ``single``: a cell, one layer whose parameters have no numbers."""

    mode: str
    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    proj_size: int
    single: bool
    nonlinearity: str

    @property
    def cell(self) -> str:
        """Its name in ``irnn.nn.cells.CELLS``."""
        return "elman" if self.mode.startswith("RNN") else self.mode.lower()

    @classmethod
    def of(cls, module: Any) -> Facts:
        """Of a module."""
        if isinstance(module, nn.RNNCellBase):
            mode = type(module).__name__.removesuffix("Cell")
            sizes = module.input_size, module.hidden_size
            kind = getattr(module, "nonlinearity", "")
            return cls(mode, *sizes, 1, module.bias, True, 0.0, False, 0, True, kind)
        return cls(
            module.mode, module.input_size, module.hidden_size, module.num_layers, module.bias, module.batch_first,
            module.dropout, module.bidirectional, getattr(module, "proj_size", 0), False,
            getattr(module, "nonlinearity", ""),
        )  # fmt: skip


class BorrowedStack(nn.Module):
    """The layers of a recurrent module of torch or irnn, on its parameters, by the cell that trains quantized."""

    def __init__(
        self, source: Borrowed, path: str, columns: list[int] | None = None, apart: list[int] | None = None
    ) -> None:
        """``apart``: sizes of the values that lie side by side in the input, each of which has its own columns."""
        super().__init__()
        module = Facts.of(source.network.get_submodule(path))
        cell = cell_class(module.cell)
        options: dict[str, Any] = {"proj_size": module.proj_size} if module.proj_size else {}
        if module.cell == "elman":
            options["nonlinearity"] = module.nonlinearity
        size = cell.output_size(module.hidden_size, **options) * (2 if module.bidirectional else 1)
        self.depth = module.num_layers
        self._source, self._path = source, path
        for k in range(module.num_layers):
            with torch.device("meta"):
                layer = RecurrentLayer(
                    cell, size if k else module.input_size, module.hidden_size, bias=module.bias, norm=None,
                    bidirectional=module.bidirectional, **options,
                )  # fmt: skip
            for name, part in layer.cells.items():
                end = "_reverse" if name == "backward_cell" else ""
                suffix = "" if module.single else f"_l{k}{end}"
                _borrow(part, source, path, suffix, None if k else columns, bias=module.bias)
            for site in layer.modules():
                if isinstance(site, QuantSite):
                    site.observed_min = torch.full((site.groups,), math.nan)
                    site.observed_max = torch.full((site.groups,), math.nan)
            self.add_module(str(k), layer)
        self._apart: dict[nn.Module, list[nn.Module]] = {}  # a cell's w_x -> the products that it is made of
        for part in self.layers[0].cells.values() if apart else ():
            self._part(part, source, apart or [])

    def _part(self, cell: Any, source: Borrowed, sizes: list[int]) -> None:
        """Columns of the input's product for each value, in ``w_x`` (with the biases) and ``w_x_1`` and so on."""
        whole: BorrowedLinear = cell.w_x
        start, names = 0, []
        for k, size in enumerate(sizes):
            columns = list(range(start, start + size))
            name = f"w_x_{k}" if k else "w_x"
            biases = () if k else whole._biases
            part = BorrowedLinear(source, whole._weight, biases, reads_hidden=whole.reads_hidden, columns=columns)
            if not k:
                delattr(cell, "w_x")
            setattr(cell, name, part)
            names.append(name)
            start += size
        self._apart[cell.w_x] = [getattr(cell, name) for name in names]

    def parts_of(self, module: nn.Module) -> list[nn.Module]:
        """The products that make up ``w_x``."""
        return self._apart[module]

    @property
    def dropout(self) -> float:
        """Between layers, as the network's module has it at the time."""
        return Facts.of(self._source.network.get_submodule(self._path)).dropout

    @property
    def layers(self) -> list[RecurrentLayer]:
        """From the input up."""
        return [self.get_submodule(str(k)) for k in range(self.depth)]  # type: ignore[misc]


def _borrow(cell: Any, source: Borrowed, path: str, suffix: str, columns: list[int] | None, *, bias: bool) -> None:
    """Put the network's matrices where the cell has its own."""
    places: dict[str, dict[str, str]] = {}
    for theirs, own in cell.TORCH_PARAMETERS.items():
        part, _, name = own.rpartition(".")
        places.setdefault(part, {})[name] = f"{path}.{theirs}{suffix}"
    for part, names in places.items():
        if getattr(cell, part) is None:
            continue
        own = getattr(cell, part)
        biases = tuple(where for name, where in sorted(names.items()) if name.startswith("bias")) if bias else ()
        borrowed = BorrowedLinear(
            source, names["weight"], biases, recurrent=own.recurrent, reads_hidden=own.reads_hidden,
            columns=columns if part == "w_x" else None,
        )  # fmt: skip
        delattr(cell, part)
        setattr(cell, part, borrowed)
