"""Recurrent cells, by name: a new one is a file here and an entry below."""

from __future__ import annotations

from irnn.errors import IrnnError
from irnn.nn.cells.base import Cell
from irnn.nn.cells.elman import ElmanCell
from irnn.nn.cells.gru import GRUCell
from irnn.nn.cells.lstm import LSTMCell
from irnn.nn.cells.mogrifier import MogrifierCell
from irnn.nn.cells.ornn import ORNNCell

CELLS: dict[str, type[Cell]] = {
    "gru": GRUCell, "lstm": LSTMCell, "ornn": ORNNCell, "elman": ElmanCell, "mogrifier": MogrifierCell,
}  # fmt: skip


def cell_class(name: str) -> type[Cell]:
    """The class of the cell ``name``; an unknown one is an :class:`IrnnError` that lists the known ones."""
    if name not in CELLS:
        raise IrnnError(f"unknown cell {name!r}; allowed are {', '.join(CELLS)}")
    return CELLS[name]
