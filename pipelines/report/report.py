"""What a run shows at its end: `results.json` for machines and one table for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from irnn.commit import commit
from irnn.errors import IrnnError
from pipelines import problems
from pipelines.config import RunConfig
from pipelines.core.manifest import digest_of, versions
from pipelines.core.stages import Stage
from pipelines.problems import Figure

RESULTS = "results.json"

Manifests = dict[str, dict[str, Any]]

# Rows of the table: the scored stages under their own names, and what the stage `evaluate` finds out about the program.
PROGRAM_ROW, BASELINE_ROW = "integer", "float_matched"
_LABELS = {
    "float": "float",
    "float_matched": "float, matched",
    "pwl": "+ PWL",
    "weights": "+ int weights",
    "activations": "+ int activations",
    "all": "+ int cell (all)",
    PROGRAM_ROW: "integer program",
}


def results_of(config: RunConfig, stages: Sequence[Stage], manifests: Manifests) -> dict[str, Any]:
    """Everything a run has measured, as JSON values; what has not run is null.

    `digest` is the run's own, `configuration` is equal for runs that differ only in their seed. `config` is the
    composed configuration, `command` what repeats the run.
    """
    kind = config.kind
    settings = [{key: value for key, value in stage.inputs.items() if key not in ("seed", "float")} for stage in stages]
    bench = manifests.get("bench", {}).get("metrics", {})
    program = manifests.get("program", {}).get("metrics", {})
    evaluation = manifests.get("evaluate", {}).get("metrics", {})
    further = manifests["float"]["inputs"] | evaluation | bench
    return {
        "experiment": config.name,
        "problem": config.problem.name,
        "digest": digest_of([stage.digest for stage in stages]),
        "configuration": digest_of(settings),
        "seed": config.seed,
        "command": config.command,
        "config": config.composed,
        "stages": {
            row: {key: value for key, value in manifests[stage]["metrics"].items() if isinstance(value, float)}
            for row in _LABELS
            if (stage := "evaluate" if row == PROGRAM_ROW else row) in manifests
        },
        "mismatches": evaluation.get("mismatches"),
        "size_bytes": {"float": program.get("float_bytes"), "integer": program.get("integer_bytes")},
        kind.timing: bench.get(kind.timing, {"tvm_float": None, "tvm_integer": None}),
        **{key: further[key] for key in kind.further if key in further},
        "epochs": {stage: manifest["epochs"] for stage, manifest in manifests.items() if "epochs" in manifest},
        "wall_seconds": {stage: manifest["wall_seconds"] for stage, manifest in manifests.items()},
        "commit": commit(),
        "versions": versions(),
    }


def read_results(folder: Path) -> dict[str, Any]:
    """The `results.json` of a run's folder (or that file); one that is absent, damaged or of another version is an
    `IrnnError`."""
    path = folder if folder.name == RESULTS else folder / RESULTS
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise IrnnError(f"{folder} holds no {RESULTS}: give the folder of a complete run") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise IrnnError(f"{path} is damaged; run the experiment again, finished stages are not repeated") from None
    if "problem" not in run:
        raise IrnnError(f"{path} is of irnn 0.1, whose results name no problem; run the experiment again")
    return run


def goals(results: dict[str, Any]) -> tuple[float, float] | None:
    """The figure of merit of the last scored stage (of a language model the validation perplexity) and the program's
    bytes, both to be as low as possible: what a search over bits goes by.  Of a share of which more is better it is
    what is missing to 1.  None where there is no program."""
    size, figures = results["size_bytes"]["integer"], figures_of(results)
    if size is None or not figures:
        return None
    key, figure = next(iter(figures.items()))
    value = [stage for stage in results["stages"].values() if key in stage][-1][key]
    return 1 - value if figure.higher else value, float(size)


def figures_of(results: dict[str, Any]) -> dict[str, Figure]:
    """The figures of merit that the stages have, in the order of columns."""
    found = {key for stage in results["stages"].values() for key in stage}
    return {key: figure for key, figure in problems.find(results["problem"]).figures.items() if key in found}


def table_of(results: dict[str, Any]) -> Table:
    """One row a stage: figures of merit, size, time per token, speed-up, mismatching integers."""
    columns = columns_of(results)
    title = f"{results['experiment']}, seed {results['seed']}: {', '.join(columns[1:-4])}, size, time, mismatches"
    # Narrow enough for 80 columns, which is what logs have.
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("stage", no_wrap=True)
    rows, figures = list(rows_of(results)), len(figures_of(results))
    columns = [column.removeprefix("perplexity ") for column in columns]
    # A column that has nothing to say (yet) leaves its room to the others.
    shown = [k for k in range(1, len(columns)) if k <= figures or any(row[k] for row in rows)]
    for k in shown:
        table.add_column(columns[k].replace(" ", "\n"), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row[0], *(row[k] for k in shown))
    return table


def columns_of(results: dict[str, Any]) -> list[str]:
    """The headings of `rows_of`."""
    figures = (figure.heading for figure in figures_of(results).values())
    return ["stage", *figures, "size", timing_of(results)[0].heading, "speed-up", "mismatches"]


def rows_of(results: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The cells of the table: stage, figures of merit, size, time, speed-up, mismatches."""
    figures = figures_of(results)
    for stage, found in results["stages"].items():
        cells = (f"{found[key]:{figure.form}}" if key in found else "" for key, figure in figures.items())
        yield (_LABELS[stage], *cells, *_deployment_cells(stage, results))


def timing_of(results: dict[str, Any]) -> tuple[Figure, dict[str, float | None]]:
    """(how times are shown, times by back end), as the problem measures them."""
    kind = problems.find(results["problem"])
    return kind.time, results[kind.timing]


def _deployment_cells(stage: str, results: dict[str, Any]) -> tuple[str, str, str, str]:
    """(size, time, speed-up, mismatches) where they belong to the stage."""
    size, (figure, times) = results["size_bytes"], timing_of(results)
    form = figure.form
    floating, integer = times["tvm_float"], times["tvm_integer"]
    mismatches = results["mismatches"] or {}
    if stage == BASELINE_ROW:
        return show_bytes(size["float"]), _time(floating, form), "1.0x" if floating else "", ""
    if stage == "all":
        return "", "", "", _mismatch(mismatches.get("interpreter_vs_qat"))
    if stage == PROGRAM_ROW:
        speed_up = f"{floating / integer:.1f}x" if floating and integer else ""
        count = _mismatch(mismatches.get("tvm_vs_interpreter"))
        return show_bytes(size["integer"]), _time(integer, form), speed_up, count
    return "", "", "", ""


def show_bytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.2f} MB"


def _time(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _mismatch(found: dict[str, int] | None) -> str:
    if found is None:
        return ""
    compared = found["compared"]
    return f"{found['count']} of " + (f"{compared / 1e6:.1f}M" if compared >= 100_000 else f"{compared}")
