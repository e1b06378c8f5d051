"""The page of one run, from what lies in its folder."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from markupsafe import Markup
from omegaconf import OmegaConf

import irnn
from irnn.errors import IrnnError
from irnn.program import Program
from pipelines import problems
from pipelines.core.evaluate import SITES
from pipelines.core.export import PROGRAM
from pipelines.core.manifest import FILE as MANIFEST
from pipelines.core.matrix import SUFFIX
from pipelines.report import plots
from pipelines.report.proof import facts_of, operations_of
from pipelines.report.pwl_errors import TableError, table_errors
from pipelines.report.render import write_page
from pipelines.report.report import (
    BASELINE_ROW,
    PROGRAM_ROW,
    RESULTS,
    columns_of,
    figures_of,
    read_results,
    rows_of,
    show_bytes,
    timing_of,
)
from pipelines.report.tables import Entry, PageTable, page_table

# Tables of a network whose error is drawn; all of them are listed.
_DRAWN = 8


def write_run_page(folder: Path) -> Path:
    """Write `report.html` into the folder of a complete run; the path."""
    results = read_results(folder)
    manifests = {path.parent.name: _json(path) for path in (folder / "stages").glob(f"*/{MANIFEST}")}
    stages = [name for name in results["wall_seconds"] if name in manifests]
    loaded = irnn.load(folder / PROGRAM)
    programs: Mapping[str, Program] = {"": loaded} if isinstance(loaded, Program) else loaded
    errors = table_errors(programs)
    curves = {name: manifests[name].get("curve", []) for name in stages}
    operations = operations_of(programs)
    content = {
        "title": f"{results['experiment']}, seed {results['seed']}",
        "results": results,
        "tiles": list(_tiles(results)),
        "stage_table": page_table("The stages", columns_of(results), rows_of(results)),
        "work_table": _work(results, stages),
        "curves": plots.training_curves("curves", curves),
        "trade_offs": list(trade_offs(folder, results)),
        "pwl_table": _tables(errors),
        "pwl_errors": plots.pwl_errors("pwl", sorted(errors, key=lambda e: -e.largest)[:_DRAWN]) if errors else None,
        "pwl_drawn": min(_DRAWN, len(errors)),
        "site_table": _sites(folder),
        "facts": facts_of(results, programs, folder),
        "operations": page_table(
            "Operations of the program", ("operation", "count"), ((op, str(n)) for op, n in operations.most_common())
        ),
        "pictures": list(_pictures(folder)),
        "machine": manifests.get("bench", {}).get("machine"),
        "config": OmegaConf.to_yaml(OmegaConf.create(results["config"])),
    }
    return write_page(folder, "run.html.j2", content)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _tiles(results: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(what, value, beside it): the program in a few numbers."""
    stages, sizes, (timing, times) = results["stages"], results["size_bytes"], timing_of(results)
    for key, figure in figures_of(results).items():
        integer, floating = (stages.get(row, {}).get(key) for row in (PROGRAM_ROW, BASELINE_ROW))
        if integer is not None:
            beside = "" if floating is None else f"float {floating:{figure.form}}"
            yield key.replace("_", " "), f"{integer:{figure.form}}", beside
    if sizes["integer"]:
        yield "size", show_bytes(sizes["integer"]), f"{sizes['float'] / sizes['integer']:.1f}x smaller than fp32"
    if times["tvm_integer"] is not None:
        floating = times["tvm_float"]
        beside = "" if floating is None else f"{floating / times['tvm_integer']:.1f}x faster than float"
        yield timing.heading, f"{times['tvm_integer']:{timing.form}}", beside
    counts = [pair for pair in (results["mismatches"] or {}).values() if pair is not None]
    if counts:
        compared = sum(pair["compared"] for pair in counts)
        yield "integers that differ", f"{sum(pair['count'] for pair in counts):,}", f"of {compared:,}"


def _work(results: dict[str, Any], stages: list[str]) -> PageTable:
    rows = [
        (name, str(results["epochs"].get(name, "")), Entry(f"{(s := results['wall_seconds'][name]):,.1f}", s))
        for name in stages
    ]
    return page_table("What each stage took", ("stage", "epochs", "seconds"), rows)


def trade_offs(folder: Path, results: dict[str, Any]) -> Iterator[Markup]:
    """The figure of merit against bytes and against time: this run's program and its float baseline, and the programs
    of the runs beside it."""
    if not (figures := list(figures_of(results).items())):
        return
    key, figure = figures[-1]
    timing = problems.find(results["problem"]).timing
    beside = [run for run in _beside(folder) if run["problem"] == results["problem"]]
    for name, x, where, libraries, unit in (
        ("bytes", "kB", "size_bytes", ("float", "integer"), 1e3),
        ("time", timing_of(results)[0].heading, timing, ("tvm_float", "tvm_integer"), 1.0),
    ):
        found = [("float", results, BASELINE_ROW, libraries[0]), ("integers", results, PROGRAM_ROW, libraries[1])]
        found += [("", run, PROGRAM_ROW, libraries[1]) for run in beside]
        points = [
            plots.Point(label, run[where][library] / unit, run["stages"][row][key], own=run is results)
            for label, run, row, library in found
            if run[where][library] is not None and key in run["stages"].get(row, {})
        ]
        if points:
            yield plots.trade_off(f"trade-{name}", points, x, key.replace("_", " "), higher=figure.higher)


def _beside(folder: Path) -> Iterator[dict[str, Any]]:
    """The results of the experiment's other runs; one that cannot be read is none of this page."""
    for path in sorted(folder.parent.glob(f"*/{RESULTS}")):
        if path.parent != folder:
            with suppress(IrnnError):
                yield read_results(path.parent)


def _tables(errors: list[TableError]) -> PageTable:
    heads = ("table", "function", "pieces", "shift", "largest error", "RMS error")
    rows = [(e.name, e.function, str(e.pieces), str(e.shift), f"{e.largest:.3f}", f"{e.rms:.3f}") for e in errors]
    return page_table("Error of every table, in steps of its output", heads, rows)


def _sites(folder: Path) -> PageTable | None:
    """One row a site, of groups the widest range; None where the run kept none."""
    if not (folder / SITES).is_file():
        return None
    rows = []
    for site in _json(folder / SITES):
        low, high = (f([bound[k] for bound in site["observed"]]) for k, f in ((0, min), (1, max)))
        scale, clipped = max(site["scale"]), site["clipped_share"]
        rows.append(
            (
                site["name"],
                site["role"],
                str(site["bits"]),
                Entry(f"{low:.4g}", low),
                Entry(f"{high:.4g}", high),
                Entry(f"{scale:.3g}", scale),
                ", ".join(dict.fromkeys(str(z) for z in site["zero_point"])),
                Entry("" if clipped is None else f"{clipped:.3%}", clipped),
            )
        )
    heads = ("site", "role", "bits", "from", "to", "largest step", "zero point", "clipped")
    return page_table("Quantization sites", heads, rows)


def _pictures(folder: Path) -> Iterator[tuple[str, Markup | str]]:
    """(title, drawing, or the address of an image): matrices, else the images that the evaluation has left."""
    matrices = sorted(folder.glob(f"*{SUFFIX}"))
    for path in matrices:
        found = _json(path)
        yield found["title"], plots.matrix(path.name.removesuffix(SUFFIX), found)
    for path in [] if matrices else sorted(folder.glob("*.png")):
        yield path.stem, f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
