"""Which matrices bear few bits: the noise that each of them, quantized alone, brings to the network's output.

What a search over bits begins with: matrices that no code harms need not be searched, and one that none serves shows
where a network's bits belong.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from irnn.calibration import batch_size, evaluating
from irnn.errors import IrnnError
from irnn.models.base import RecurrentModel
from irnn.models.output_metric import OutputMetric, Squares
from irnn.nn.linear import Weight
from irnn.program import encodings
from irnn.quant.codes import WeightCode, weight_code
from irnn.wiring.network import wiring_of

CHOICES: tuple[int | str, ...] = (8, 4, "midrise:3", "midrise:2", "binary")


@dataclass(frozen=True)
class Sensitivity:
    """One matrix in one code, all others as they are.

    choice: as in ``QuantConfig``, bits or ``CODE:BITS``.  size_bytes: its integers, packed.  decibels: power of the
    float network's output over that of the difference; inf where there is none.
    """

    name: str
    choice: int | str
    size_bytes: int
    decibels: float


class Sensitivities(list[Sensitivity]):
    """The rows, which print as a table of decibels, a row a matrix, the least robust one first (also with Rich)."""

    def to_dicts(self) -> list[dict[str, Any]]:
        """For JSON."""
        return [asdict(row) for row in self]

    def __rich__(self) -> Table:
        choices = list(dict.fromkeys(row.choice for row in self))
        table = Table("matrix", title="signal over noise at the output, dB, one matrix quantized alone")
        for choice in choices:
            table.add_column(str(choice), justify="right")
        names = sorted({row.name for row in self}, key=lambda name: sum(r.decibels for r in self if r.name == name))
        for name in names:
            table.add_row(name, *(f"{row.decibels:.1f}" for row in self if row.name == name))
        return table

    def __str__(self) -> str:
        console = Console(width=120)
        with console.capture() as capture:
            console.print(self)
        return capture.get()


@torch.no_grad()
def sensitivity(model: nn.Module, batches: Iterable[Sized], choices: Sequence[int | str] = CHOICES) -> Sensitivities:
    """Quantize one matrix at a time, in each of ``choices``, and measure the noise at the output.

    model: in stage "float", one of one's own after ``prepare``; it is left as it was.  batches: what
    :func:`irnn.qat.calibrate` takes; the state is carried from one to the next while the batch size stays the same.
    Matrices that are one tensor are quantized together, under the first one's name.
    """
    wiring: RecurrentModel = wiring_of(model)
    if wiring.stage != "float":
        raise IrnnError(f"stage {wiring.stage!r}: sensitivity is that of the float network; go to stage 'float' first")
    kept = list(batches)
    if not kept:
        raise IrnnError("sensitivity got no batch; give at least one")
    rows = Sensitivities()
    with evaluating(wiring):
        exact = list(outputs(wiring, kept))
        signal = sum(float(part.double().square().sum()) for y in exact for part in y)
        for name, modules in tensors(wiring).items():
            for choice in choices:
                code = weight_code(choice, per_row=modules[0].role == "weight")
                with coded(modules, code):
                    noise = difference(exact, outputs(wiring, kept), Squares())
                rows.append(Sensitivity(name, choice, _bytes(modules[0], code), _decibels(signal, noise)))
    return rows


def tensors(model: RecurrentModel) -> dict[str, list[Weight]]:
    """The modules that share each tensor, under the name of the first."""
    shared: dict[int, tuple[str, list[Weight]]] = {}
    for name, module in model.matrices().items():
        shared.setdefault(module.identity, (name, []))[1].append(module)
    return dict(shared.values())


def outputs(model: RecurrentModel, batches: Iterable[Sized]) -> Iterator[list[Tensor]]:
    """All that leaves the network for each batch; no gradient is carried on from one to the next, as the state is."""
    state: dict[str, Tensor] | None = None
    size = 0
    for batch in batches:
        y, state = model.response(batch, state if batch_size(batch) == size else None)
        state, size = tree_map(Tensor.detach, state), batch_size(batch)
        yield [part for part in tree_leaves(y) if isinstance(part, Tensor)]


def difference(exact: Iterable[Sequence[Tensor]], found: Iterable[Sequence[Tensor]], metric: OutputMetric) -> float:
    """The distance of outputs, over all batches."""
    return sum(
        metric.distance(x, y)
        for before, after in zip(exact, found, strict=True)
        for x, y in zip(before, after, strict=True)
    )


@contextmanager
def coded(modules: Sequence[Weight], code: WeightCode) -> Iterator[None]:
    """The tensor quantized, for a while."""
    before = [module.code for module in modules]
    for module in modules:
        module.code, module.quantizing = code, True
    try:
        yield
    finally:
        for module, was in zip(modules, before, strict=True):
            module.code, module.quantizing = was, False


def _bytes(module: Weight, code: WeightCode) -> int:
    """Of the packed integers, all planes together."""
    bits = 0
    for plane in code.encode(module.weight.double().numpy(force=True)):
        name = plane.encoding or encodings.version_1("int8", plane.bits)
        bits += plane.integers.size * encodings.find(name).storage_bits(plane.bits)
    return (bits + 7) // 8


def _decibels(signal: float, noise: float) -> float:
    return math.inf if noise == 0 else 10 * math.log10(signal / noise) if signal > 0 else -math.inf
