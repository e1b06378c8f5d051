"""What a run shows at its end: `results.json` for machines and one table for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.table import Table

from pipelines.core.manifest import commit, digest_of, versions
from pipelines.core.stages import Stage

RESULTS = "results.json"

Manifests = dict[str, dict[str, Any]]

# Rows of the table: name of the stage -> what it is called in the results.
_STAGES = {
    "float": "float",
    "float_matched": "float_matched",
    "pwl": "pwl",
    "weights": "weights",
    "activations": "activations",
    "all": "qat",
    "evaluate": "integer",
}
# Columns of the table: key in the results -> heading, number format.
_FIGURES = {
    "valid_perplexity": ("perplexity valid", ".2f"),
    "test_perplexity": ("test", ".2f"),
    "dev_cross_entropy": ("dev nats", ".3f"),
    "test_wer": ("test WER", ".1%"),
    "test_unseen_speaker_wer": ("unseen WER", ".1%"),
}
# Of recognizers: see `pipelines.problems.speech.speech_problem`.
_SPECIAL = ("bootstrap", "left_out", "real_time_factor")
_EXPLANATION = {
    "float": "float",
    "float_matched": "float, matched",
    "pwl": "+ PWL",
    "weights": "+ int weights",
    "activations": "+ int activations",
    "qat": "+ int cell (QAT)",
    "integer": "integer program",
}


def results_of(name: str, seed: int, stages: Sequence[Stage], manifests: Manifests) -> dict[str, Any]:
    """Everything a run has measured, as JSON values; what has not run is null.

    `digest` is the run's own, `configuration` is equal for runs that differ only in their seed.
    """
    settings = [{key: value for key, value in stage.inputs.items() if key not in ("seed", "float")} for stage in stages]
    bench = manifests.get("bench", {}).get("metrics", {})
    program = manifests.get("program", {}).get("metrics", {})
    evaluation = manifests.get("evaluate", {}).get("metrics", {})
    return {
        "experiment": name,
        "digest": digest_of([stage.digest for stage in stages]),
        "configuration": digest_of(settings),
        "seed": seed,
        "stages": {
            _STAGES[stage]: {key: value for key, value in manifest["metrics"].items() if isinstance(value, float)}
            for stage, manifest in manifests.items()
            if stage in _STAGES
        },
        "mismatches": evaluation.get("mismatches"),
        "size_bytes": {"float": program.get("float_bytes"), "integer": program.get("integer_bytes")},
        "us_per_token": {key: bench.get(key) for key in ("tvm_float", "tvm_integer")},
        # What only some problems have.
        **{key: value for key, value in manifests["float"]["inputs"].items() if key == "pretrained_encoder"},
        **{key: value for key, value in (evaluation | bench).items() if key in _SPECIAL},
        "epochs": {stage: manifest["epochs"] for stage, manifest in manifests.items() if "epochs" in manifest},
        "wall_seconds": {stage: manifest["wall_seconds"] for stage, manifest in manifests.items()},
        "commit": commit(),
        "versions": versions(),
    }


def figures_of(results: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """The figures of merit that the stages have, in the order of columns: heading and number format by key."""
    found = {key for stage in results["stages"].values() for key in stage}
    return {key: column for key, column in _FIGURES.items() if key in found}


def table_of(results: dict[str, Any]) -> Table:
    """One row a stage: figures of merit, size, time per token, speed-up, mismatching integers."""
    headings = [heading for heading, _ in figures_of(results).values()]
    title = f"{results['experiment']}, seed {results['seed']}: {', '.join(headings)}, size, time, mismatches"
    # Narrow enough for 80 columns, which is what logs have.
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("stage", no_wrap=True)
    short = [heading.removeprefix("perplexity ") for heading in headings]
    rows = list(rows_of(results))
    columns = ["stage", *short, "size", timing_of(results)[0], "speed-up", "mismatches"]
    # A column that has nothing to say (yet) leaves its room to the others.
    shown = [k for k in range(1, len(columns)) if k <= len(short) or any(row[k] for row in rows)]
    for k in shown:
        table.add_column(columns[k].replace(" ", "\n"), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row[0], *(row[k] for k in shown))
    return table


def rows_of(results: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The cells of the table: stage, figures of merit, size, time, speed-up, mismatches."""
    figures = figures_of(results)
    for stage, found in results["stages"].items():
        cells = (f"{found[key]:{form}}" if key in found else "" for key, (_, form) in figures.items())
        yield (_EXPLANATION[stage], *cells, *_deployment_cells(stage, results))


def timing_of(results: dict[str, Any]) -> tuple[str, dict[str, float | None], str]:
    """(heading, figures by back end, number format): a recognizer's time goes by seconds of audio."""
    if "real_time_factor" in results:
        return "s/s audio", results["real_time_factor"], ".4f"
    return "us/token", results["us_per_token"], ".1f"


def _deployment_cells(stage: str, results: dict[str, Any]) -> tuple[str, str, str, str]:
    """(size, time, speed-up, mismatches) where they belong to the stage."""
    size, (_, times, form) = results["size_bytes"], timing_of(results)
    floating, integer = times["tvm_float"], times["tvm_integer"]
    mismatches = results["mismatches"] or {}
    if stage == "float_matched":
        return _bytes(size["float"]), _time(floating, form), "1.0x" if floating else "", ""
    if stage == "qat":
        return "", "", "", _mismatch(mismatches.get("interpreter_vs_qat"))
    if stage == "integer":
        speed_up = f"{floating / integer:.1f}x" if floating and integer else ""
        count = _mismatch(mismatches.get("tvm_vs_interpreter"))
        return _bytes(size["integer"]), _time(integer, form), speed_up, count
    return "", "", "", ""


def _bytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.2f} MB"


def _time(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _mismatch(found: dict[str, int] | None) -> str:
    if found is None:
        return ""
    compared = found["compared"]
    return f"{found['count']} of " + (f"{compared / 1e6:.1f}M" if compared >= 100_000 else f"{compared}")
