"""The error of a program's piecewise-linear tables against the real functions, over every input that can reach them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from irnn.program import Program
from irnn.program.graph import Node
from irnn.quant.pwl import PwlTable, output_steps

# A grid of 16 bits is shown as so many bands, each from the smallest to the largest error in it.
_BANDS = 240


@dataclass(frozen=True)
class TableError:
    """x, low, high: the band of the error in output steps over the inputs' real values.  largest, rms: over all."""

    name: str
    function: str
    pieces: int
    shift: int
    x: np.ndarray
    low: np.ndarray
    high: np.ndarray
    largest: float
    rms: float


def table_errors(programs: Mapping[str, Program]) -> list[TableError]:
    """Every table whose input has one scale, in the order in which it is looked up; equal ones once."""
    found: dict[Any, TableError] = {}
    for part, program in programs.items():
        for node in program.walk():
            if node.op == "pwl":
                for table in _tables(program, node):
                    name = f"{part}.{node.output}" if part else node.output
                    key = (table.function, table.scale, table.knots.tobytes(), table.intercepts.tobytes())
                    found.setdefault(key, _error(name, table))
    return list(found.values())


def _tables(program: Program, node: Node) -> Iterator[PwlTable]:
    values = program.inputs | program.values
    x, y = values[node.inputs[0]], values[node.output]
    if x.scale is None or y.scale is None:
        return
    knots, slopes, intercepts = (program.tensors[node.tensors[role]].data for role in ("knots", "slopes", "intercepts"))
    a = node.attributes
    yield PwlTable(
        a["function"], x.scale, x.zero_point, int(knots[0]), int(np.iinfo(x.dtype).max), y.scale, y.zero_point,
        a["low"], a["high"], knots, slopes, intercepts, a["shift"],
    )  # fmt: skip


def _error(name: str, table: PwlTable) -> TableError:
    grid = table.grid
    x = table.scale * (grid.astype(np.float64) - table.zero_point)
    exact = output_steps(
        table.function, x, table.output_scale, table.output_zero_point, table.output_min, table.output_max
    )
    error = table(grid).astype(np.int64) - exact
    bands = np.array_split(np.arange(len(grid)), min(_BANDS, len(grid)))
    return TableError(
        name,
        table.function,
        len(table.knots),
        table.shift,
        np.array([x[band].mean() for band in bands]),
        np.array([error[band].min() for band in bands]),
        np.array([error[band].max() for band in bands]),
        float(np.abs(error).max()),
        float(np.sqrt(np.mean(error**2))),
    )
