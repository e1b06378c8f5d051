"""Runs side by side, a row a quantizer: `docs/results/<name>.json` of `python -m pipelines.publish --compare NAME`.

A row is what its seeds share (network, quantization, recipe) with the means of what they measured; each seed's own
figures stay under `runs`, so that a later seed joins its row.  The figure of merit is the problem's last one of which
less is better (of a language model the test perplexity), else its last one.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from irnn.errors import IrnnError
from irnn.quant.codes import CODES, UNIFORM
from irnn.quant.config import QuantConfig
from pipelines import problems
from pipelines.config import COMPENSATED, FLOAT_ALONE, baseline_of
from pipelines.core.orthogonality import FIGURES
from pipelines.problems import Figure

Row = dict[str, Any]
Run = dict[str, Any]  # of a results.json
STAGES = ("float", "float_matched", "integer")
# What a row is known by.
KEYS = (
    "cell",
    "task",
    "orthogonal",
    "code",
    "weight_bits",
    "activation_code",
    "activation_bits",
    "of",
    "post_training",
)


def joined(rows: Iterable[Row], runs: Iterable[Run]) -> list[Row]:
    """`rows` and one more for every run, those that differ only in their seed as one; a seed that comes again replaces
    what it had.  A row that was trained otherwise (`configuration`) is an `IrnnError`."""
    found = {_key(row): row for row in rows}
    for run in runs:
        new = _row_of(run)
        row = found.setdefault(_key(new), new)
        if row["configuration"] != new["configuration"]:
            raise IrnnError(
                f"{_title(new)}: published with configuration {row['configuration']}, this run has "
                f"{new['configuration']}; compare runs of one recipe, or publish under another name"
            )
        row["runs"] |= new["runs"]
    rows = [_averaged(row) for row in found.values()]
    return sorted(rows, key=_place)


def _row_of(run: Run) -> Row:
    quant, model, kind = QuantConfig.from_mapping(run["config"]["quant"]), run["config"]["model"], _kind(run)
    if not run["stages"].get("integer"):
        raise IrnnError(f"{run['experiment']}, seed {run['seed']}: no figures of an integer program; run it to its end")
    return {
        "cell": model["cell"],
        "task": {key: run["config"]["data"][key] for key in kind.task} or None,
        "orthogonal": (model.get("cell_options") or {}).get("orthogonal"),
        "code": _code(quant.choice("weight")),
        "weight_bits": _bits(quant),
        "activation_code": _code(quant.choice("hidden")),
        "activation_bits": quant.run_time_codes or quant.bits("hidden"),
        "of": {pattern: str(choice) for pattern, choice in quant.of_choices.items()},
        "post_training": run["config"]["post_training"],
        "problem": run["problem"],
        "configuration": run["configuration"],
        "epochs": run["epochs"],
        "size_bytes": run["size_bytes"]["integer"],
        "float_bytes": run["size_bytes"]["float"],
        "runs": {
            str(run["seed"]): {
                "stages": {stage: run["stages"][stage] for stage in STAGES if stage in run["stages"]},
                "mismatches": run["mismatches"],
                "time": run[kind.timing],
                "commit": run["commit"],
                "command": run["command"],
                **{key: _norms(run[key]) if key == "orthogonality" else run[key] for key in FIGURES if key in run},
            }
        },
    }


def _averaged(row: Row) -> Row:
    """`row` with the means over its seeds."""
    kind, runs = _kind(row), dict(sorted(row["runs"].items(), key=lambda item: int(item[0])))
    merit, _ = _merit(kind)
    found = {
        stage: [figures[merit] for run in runs.values() if merit in (figures := run["stages"].get(stage, {}))]
        for stage in STAGES
    }
    times = [run["time"] for run in runs.values()]
    counts = [pair for run in runs.values() for pair in (run["mismatches"] or {}).values() if pair is not None]
    return row | {
        "runs": runs,
        "seeds": [int(seed) for seed in runs],
        "commit": next(reversed(runs.values()))["commit"],
        **{stage: statistics.fmean(values) if values else None for stage, values in found.items()},
        **{
            key: None if None in (values := [time[library] for time in times]) else statistics.fmean(values)
            for key, library in ((kind.timing, "tvm_integer"), (f"float_{kind.timing}", "tvm_float"))
        },
        "mismatches": sum(pair["count"] for pair in counts),
        "compared": sum(pair["compared"] for pair in counts),
    }


def table_of_rows(rows: Sequence[Row]) -> str:
    """The rows in Markdown, a table a cell."""
    kind = _kind(rows[0])
    _, merit = _merit(kind)
    heads: tuple[str, ...] = (
        "weights",
        "read",
        f"{merit.heading}, float",
        "integer",
        "difference",
        "size",
        "smaller",
    )
    radii = {_key(row): _radius(row) for row in rows}
    if measured := any(radius is not None for radius in radii.values()):
        heads += ("spectral radius",)
    parts = []
    for cell in dict.fromkeys(row["cell"] for row in rows):
        parts += [
            f"{cell.upper()}:",
            "",
            "| " + " | ".join(heads) + " |",
            "|---|---" + "|---:" * (len(heads) - 2) + "|",
        ]
        for row in (row for row in rows if row["cell"] == cell):
            floating = row[baseline_of(row["post_training"])]
            read = "bits" if row["activation_code"] == UNIFORM else "codes"
            cells: tuple[str, ...] = (
                _title(row),
                f"{row['activation_bits']} {read}",
                f"{floating:{merit.form}}",
                f"{row['integer']:{merit.form}}",
                f"{row['integer'] - floating:+{merit.form}}",
                f"{row['size_bytes'] / 1e6:.2f} MB",
                f"{row['float_bytes'] / row['size_bytes']:.1f}x",
            )
            if measured:
                cells += ("" if (radius := radii[_key(row)]) is None else f"{radius:.4f}",)
            parts.append("| " + " | ".join(cells) + " |")
        parts.append("")
    wrong, compared = (sum(row[key] for row in rows) for key in ("mismatches", "compared"))
    epochs = dict.fromkeys(", ".join(f"{stage} {count}" for stage, count in row["epochs"].items()) for row in rows)
    seeds = sorted({seed for row in rows for seed in row["seeds"]})
    commits = dict.fromkeys(row["commit"][:12] for row in rows)
    facts = (
        f"Seeds: {', '.join(map(str, seeds))}. Epochs: {'; '.join(epochs)}. Commit {', '.join(commits)}.",
        f"{wrong} of {compared / 1e6:.1f}M integers differ between QAT, interpreter and TVM.",
    )
    return "\n".join([*parts, *facts, ""])


def _code(choice: int | str) -> str:
    """The name of a role's code; bits alone are those of uniform integers."""
    return UNIFORM if isinstance(choice, int) else choice.partition(":")[0]


def _bits(quant: QuantConfig) -> int:
    """Bits of a weight: of codes that are sums of binary ones, how many are summed."""
    name, _, bits = str(quant.choice("weight")).partition(":")
    return int(bits) if name in CODES and bits else quant.bits("weight")


def _title(row: Row) -> str:
    of = "".join(f", {pattern} {choice}" for pattern, choice in row["of"].items())
    trained = ", not trained" if row["post_training"] in FLOAT_ALONE else ""
    trained += ", compensated" if row["post_training"] == COMPENSATED else ""
    names = _kind(row).task
    task = "".join(f"{names[key]} = {value}, " for key, value in (row.get("task") or {}).items())
    kind = f"{row['orthogonal']}, " if row.get("orthogonal") else ""
    bits = f" {row['weight_bits']}" if CODES[row["code"]].BITS else ""
    return f"{task}{kind}{row['code'].replace('_', ' ')}{bits}{of}{trained}"


def _place(row: Row) -> tuple[Any, ...]:
    """Where it stands among the others."""
    code = list(CODES).index(row["code"])
    return (
        row["cell"],
        tuple((row.get("task") or {}).values()),
        row.get("orthogonal") or "",
        str(row["post_training"]),
        code,
        -row["weight_bits"],
    )


def _key(row: Row) -> str:
    return json.dumps([row.get(key) for key in KEYS], sort_keys=True)  # rows of before have no `orthogonal`, `task`


def _merit(kind: problems.Kind) -> tuple[str, Figure]:
    """A share of right answers ends at 100 %, where a cost still tells runs apart."""
    costs = [item for item in kind.figures.items() if not item[1].higher]
    return (costs or list(kind.figures.items()))[-1]


def _radius(row: Row) -> float | None:
    """The largest spectral radius of a quantized recurrent matrix, the mean over the seeds; None: not measured."""
    found = [
        max(matrix["spectral_radius"] for matrix in run["orthogonality"].values())
        for run in row["runs"].values()
        if "orthogonality" in run
    ]
    return statistics.fmean(found) if found else None


def _norms(orthogonality: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What is measured of each matrix, its many singular values left out."""
    return {
        name: {key: value for key, value in found.items() if key != "singular_values"}
        for name, found in orthogonality.items()
    }


def _kind(row: Row | Run) -> problems.Kind:
    return problems.find(row["problem"])
