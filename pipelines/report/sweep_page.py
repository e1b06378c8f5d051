"""The page of a sweep: its cells side by side."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

from markupsafe import Markup

from pipelines import problems
from pipelines.problems import Figure
from pipelines.report import plots
from pipelines.report.render import REPORT, write_page
from pipelines.report.report import figures_of, show_bytes
from pipelines.report.sweep_table import Row, cells_of, heads_of, keys_of, rows_of, spread_of
from pipelines.report.tables import Entry, PageTable, number_in, page_table
from pipelines.sweep import sweep
from pipelines.sweep.sweep import Sweep


def write_sweep_page(folder: Path) -> Path:
    """Write `report.html` into the folder of a sweep; the path."""
    found = sweep.read(folder)
    rows = rows_of(found)
    done = [row for row in rows if row.cell["results"]]
    content = {
        "title": f"sweep {found['name']}",
        "sweep": found,
        "count": len(rows),
        "done": sum(row.cell["state"] == sweep.DONE for row in rows),
        "seconds": sum(row.cell["seconds"] or 0 for row in rows),
        "table": _table(folder, rows),
        "spread": spread_of(rows),
        "missing": [row.cell for row in rows if row.cell["state"] != sweep.DONE],
        "trade_offs": list(_trade_offs(done)),
        "by_stage": _by_stage(done),
        "commands": page_table(
            "The command of every cell", ("cell", "command"), ((_label(row), row.cell["command"]) for row in rows)
        ),
        "versions": _facts(found),
    }
    return write_page(folder, "sweep.html.j2", content)


def _label(row: Row) -> str:
    return ", ".join(value for value in row.choices.values() if value) or f"cell {row.cell['number']}"


def _table(folder: Path, rows: list[Row]) -> PageTable:
    """Each cell leads to its own page, where there is one."""
    shown = []
    for row in rows:
        entries = [
            Entry(text, number_in(text) if key is None else key)
            for text, key in zip(cells_of(row), keys_of(row), strict=True)
        ]
        results = row.cell["results"]
        if results is not None:
            own = folder.parents[1] / results["experiment"] / str(results["digest"]) / REPORT
            if own.is_file():
                link = Path(os.path.relpath(own, folder)).as_posix()
                entries[0] = dataclasses.replace(entries[0], link=link)
        shown.append(entries)
    return page_table("All cells", heads_of(rows), shown)


def _trade_offs(rows: list[Row]) -> Iterator[Markup]:
    """One figure a cost; a sweep over problems that differ has none."""
    if (shared := _figure(rows)) is None:
        return
    key, figure = shared
    time = problems.find(rows[0].cell["results"]["problem"]).time.heading
    for name, x, cost, float_cost, unit in (
        ("bytes", "kB", "integer_bytes", "float_bytes", 1e3),
        ("time", time, "time", "float_time", 1.0),
    ):
        points: list[plots.Point] = []
        floats: list[plots.Point] = []
        for row in rows:
            for found, label, y, x_name in (
                (points, _label(row), row.figure, cost),
                (floats, "float", row.floating, float_cost),
            ):
                if y is not None and getattr(row, x_name) is not None:
                    found.append(plots.Point(label, getattr(row, x_name) / unit, y))
        if points:
            shown = [*points, *floats[:1]]
            yield plots.trade_off(f"trade-{name}", shown, x, key.replace("_", " "), higher=figure.higher)


def _by_stage(rows: list[Row]) -> Markup | None:
    """The last figure of merit along the stages."""
    if (shared := _figure(rows)) is None:
        return None
    key, _ = shared
    lines = {
        _label(row): [(stage, found[key]) for stage, found in row.cell["results"]["stages"].items() if key in found]
        for row in rows
    }
    return plots.cells_curves("stages", lines, key.replace("_", " "))


def _figure(rows: list[Row]) -> tuple[str, Figure] | None:
    """(key, form) of the figure of merit that all rows share; None where they are about different problems."""
    if len({row.cell["results"]["problem"] for row in rows}) != 1:
        return None
    figures = list(figures_of(rows[0].cell["results"]).items())
    return figures[-1] if figures else None


def _facts(found: Sweep) -> list[tuple[str, str]]:
    """What the cells ran with; several where they differ."""
    runs = [cell["results"] for cell in found["cells"] if cell["results"]]
    names = dict.fromkeys(name for run in runs for name in run.get("versions", {}))
    facts = [(name, ", ".join(dict.fromkeys(run["versions"].get(name, "none") for run in runs))) for name in names]
    commits = dict.fromkeys(str(run.get("commit")) for run in runs)
    sizes = [run["size_bytes"]["integer"] for run in runs if run["size_bytes"]["integer"]]
    if sizes:
        facts.append(("programs", f"{show_bytes(min(sizes))} to {show_bytes(max(sizes))}"))
    return [("commit", ", ".join(commits)), *facts]
