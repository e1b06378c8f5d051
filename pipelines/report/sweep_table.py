"""The table of a sweep: one row a cell."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

from irnn.quant.config import QuantConfig
from pipelines.config import baseline_of
from pipelines.report.report import PROGRAM_ROW, figures_of, show_bytes, timing_of
from pipelines.sweep.sweep import DONE, Cell, Sweep, choices_of, swept_keys


@dataclass(frozen=True)
class Row:
    """A cell in figures; None where it has none.

    choices: by swept key.  bits: of weights / hidden states.  figure: the problem's last one (of a language model the
    test perplexity) of the program, or of the last stage that has run; floating: that of the float baseline.  seconds:
    per `time_heading`.  mismatches: (count, compared) over all pairs of executors.
    """

    cell: Cell
    choices: dict[str, str]
    bits: str = ""
    heading: str = "figure"
    form: str = ".3f"
    figure: float | None = None
    floating: float | None = None
    integer_bytes: int | None = None
    float_bytes: int | None = None
    time: float | None = None
    float_time: float | None = None
    time_heading: str = "time"
    time_form: str = ".1f"
    mismatches: tuple[int, int] | None = None


def rows_of(sweep: Sweep) -> list[Row]:
    """One row a cell, in the order of their numbers."""
    keys = swept_keys(sweep["cells"])
    return [_row(cell, keys) for cell in sweep["cells"]]


def _row(cell: Cell, keys: Sequence[str]) -> Row:
    chosen = choices_of(cell)
    choices = {key: chosen.get(key, "") for key in keys}
    results = cell["results"]
    if results is None:
        return Row(cell, choices)
    figures = list(figures_of(results).items())
    counts = [pair for pair in (results["mismatches"] or {}).values() if pair is not None]
    timing, times = timing_of(results)
    size = results["size_bytes"]
    quant = QuantConfig.from_mapping(results["config"]["quant"])
    row: dict[str, Any] = {
        "bits": f"{quant.choice('weight')}/{quant.choice('hidden')}",
        "integer_bytes": size["integer"],
        "float_bytes": size["float"],
        "time": times["tvm_integer"],
        "float_time": times["tvm_float"],
        "time_heading": timing.heading,
        "time_form": timing.form,
    }
    if counts:
        row["mismatches"] = (sum(pair["count"] for pair in counts), sum(pair["compared"] for pair in counts))
    if figures:
        key, figure = figures[-1]
        stages = results["stages"]
        having = [name for name, found in stages.items() if key in found]
        quantized = [name for name in having if name not in ("float", "float_matched")]
        trained_as_long = baseline_of(results["config"]["post_training"])
        baseline = trained_as_long if trained_as_long in having else "float"
        row |= {
            "heading": figure.heading,
            "form": figure.form,
            "floating": stages[baseline][key] if baseline in having else None,
            "figure": stages[PROGRAM_ROW if PROGRAM_ROW in having else quantized[-1]][key] if quantized else None,
        }
    return Row(cell, choices, **row)


def spread_of(rows: Sequence[Row]) -> str | None:
    """Mean and standard deviation of the figure where the cells differ in nothing but their seeds; None otherwise."""
    found = [row.figure for row in rows if row.figure is not None]
    if len(found) < 2 or any(list(row.choices) != ["seed"] for row in rows):
        return None
    floats = [row.floating for row in rows if row.floating is not None]
    form, heading = rows[0].form, rows[0].heading
    beside = f", float {statistics.fmean(floats):{form}}" if floats else ""
    mean = f"{statistics.fmean(found):{form}} +- {statistics.stdev(found):{form}}"
    return f"{heading} over {len(found)} seeds: {mean}{beside}"


def heads_of(rows: Sequence[Row]) -> list[str]:
    """The columns' headings, the swept keys first."""

    def shared(headings: set[str], otherwise: str) -> str:
        return headings.pop() if len(headings) == 1 else otherwise

    figure = shared({row.heading for row in rows if row.cell["results"]}, "figure")
    time = shared({row.time_heading for row in rows if row.cell["results"]}, "time")
    keys = [key.removeprefix("quant.of.").removeprefix("quant.") for key in rows[0].choices] if rows else []
    return [*(keys or ["cell"]), "bits w/h", figure, "float", "against float", "size", "smaller", time, "mismatches"]


def cells_of(row: Row) -> Iterator[str]:
    """The row as it is shown, a text a column of `heads_of`."""
    yield from row.choices.values() if row.choices else [str(row.cell["number"])]
    yield row.bits
    if row.cell["state"] != DONE:
        yield row.cell["state"]
    else:
        yield _shown(row.figure, row.form)
    yield _shown(row.floating, row.form)
    both = row.figure is not None and row.floating is not None
    yield f"{_difference(row):+{row.form}}" if both else ""
    yield show_bytes(row.integer_bytes)
    yield f"{row.float_bytes / row.integer_bytes:.1f}x" if row.integer_bytes and row.float_bytes else ""
    yield _shown(row.time, row.time_form)
    if row.mismatches is None:
        yield ""
    else:
        count, compared = row.mismatches
        yield f"{count} of {compared / 1e6:.1f}M" if compared >= 100_000 else f"{count} of {compared}"


def keys_of(row: Row) -> list[float | None]:
    """What `cells_of` is sorted by, a column each; None: by its text."""
    both = row.figure is not None and row.floating is not None
    ratio = row.float_bytes / row.integer_bytes if row.float_bytes and row.integer_bytes else None
    wrong = None if row.mismatches is None else float(row.mismatches[0])
    difference = _difference(row) if both else None
    keys = [None, row.figure, row.floating, difference, row.integer_bytes, ratio, row.time, wrong]
    return [*([None] * max(1, len(row.choices))), *keys]


def table_of(sweep: Sweep, rows: Sequence[Row]) -> Table:
    """For the console."""
    table = Table(title=f"sweep {sweep['name']}", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False,
                  collapse_padding=True)  # fmt: skip
    shown = [list(cells_of(row)) for row in rows]
    for place, head in enumerate(heads_of(rows)):
        if any(cells[place] for cells in shown):
            short = head.removeprefix("perplexity ").replace(" ", "\n", 1)
            table.add_column(short, justify="left" if place == 0 else "right", no_wrap=True)
    places = [place for place in range(len(heads_of(rows))) if any(cells[place] for cells in shown)]
    for cells in shown:
        table.add_row(*(cells[place] for place in places))
    return table


def _difference(row: Row) -> float:
    assert row.figure is not None
    assert row.floating is not None
    return row.figure - row.floating


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"
