"""`docs/recipes.md`: one row an experiment of `conf/experiment`, from its published results; written by
`python -m pipelines.publish`.

An experiment without results stands in `docs/results/absent.json` with the reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from irnn.errors import IrnnError
from pipelines.report.report import BASELINE_ROW, PROGRAM_ROW, figures_of, show_bytes, timing_of

PAGE, ABSENT = "recipes.md", "absent.json"
_COMMAND = re.compile(r"^#\s+(python run\.py .*\S)\s*$", re.MULTILINE)

_PAGE = """\
# Recipes

Written by `python -m pipelines.publish` from `docs/results`; one row an experiment of `conf/experiment`. Figures are
those of the integer program, in brackets of the float baseline that was trained as long; times are of one thread; what
a run takes is the mean over its seeds, on the machine that ran it.

{done}

Without results:

{absent}

Their commands:

```
{commands}
```
"""
_HEADS = ("experiment", "data and network", "figures", "size", "time", "seeds", "a run takes", "commit")


def recipes_page(experiments: Path, results: Path) -> str:
    """The page, from the folders `conf/experiment` and `docs/results`; an experiment that neither has results nor a
    reason in `absent.json`, or has both, is an `IrnnError`."""
    path = results / ABSENT
    reasons = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    names = sorted(path.stem for path in experiments.glob("*.yaml"))
    found = {name: json.loads(path.read_text(encoding="utf-8"))
             for name in names if (path := results / f"{name}.json").is_file()}  # fmt: skip
    for name in names:
        if (name in found) == (name in reasons):
            both = "both results and a reason why it has none" if name in found else "neither results nor a reason"
            raise IrnnError(
                f"experiment {name} has {both}: run it and `python -m pipelines.publish RUN_FOLDER`, or say in "
                f"{results / ABSENT} why there are none"
            )
    if strangers := sorted(set(reasons) - set(names)):
        raise IrnnError(f"{results / ABSENT} names {strangers[0]}, which is no experiment; take it out")
    done = [
        "| " + " | ".join(_HEADS) + " |",
        "|---" * len(_HEADS) + "|",
        *("| " + " | ".join(_row(experiments / f"{name}.yaml", found[name])) + " |" for name in found),
    ]
    absent = [f"- `{name}`: {reasons[name]}" for name in sorted(reasons)]
    commands = [command_of(experiments / f"{name}.yaml") for name in names]
    return _PAGE.format(done="\n".join(done), absent="\n".join(absent), commands="\n".join(commands))


def command_of(experiment: Path) -> str:
    """The command that an experiment's file begins with."""
    found = _COMMAND.search(experiment.read_text(encoding="utf-8"))
    if found is None:
        raise IrnnError(
            f"{experiment} says no command: its first comment is to have one (python run.py experiment=...)"
        )
    return found[1]


def _row(experiment: Path, results: dict[str, Any]) -> Iterator[str]:
    runs = list(results["seeds"].values())
    yield f"[`{experiment.stem}`](results/{experiment.stem}.json)"
    yield _told(experiment)
    stages = results["stages"]
    shown = []
    for key, figure in figures_of(results).items():
        integer, floating = (stages.get(row, {}).get(key) for row in (PROGRAM_ROW, BASELINE_ROW))
        if integer is not None:
            beside = "" if floating is None else f" ({floating:{figure.form}})"
            shown.append(f"{figure.heading} {integer:{figure.form}}{beside}")
    yield "; ".join(shown)
    sizes = results["size_bytes"]
    yield f"{show_bytes(sizes['integer'])} ({show_bytes(sizes['float'])})"
    timing, times = timing_of(results)
    if None in times.values():
        yield "not measured"
    else:
        yield f"{times['tvm_integer']:{timing.form}} ({times['tvm_float']:{timing.form}}) {timing.heading}"
    yield ", ".join(results["seeds"])
    yield _minutes(sum(sum(run["wall_seconds"].values()) for run in runs) / len(runs))
    yield ", ".join(dict.fromkeys(run["commit"][:12] for run in runs))


def _told(experiment: Path) -> str:
    """What an experiment's file says that it is: its first comment, up to what only its reader needs."""
    first = next(line for line in experiment.read_text(encoding="utf-8").splitlines() if line.startswith("# ")
                 and not line.startswith("# @"))  # fmt: skip
    return re.split(r"[;:(]", first.removeprefix("# "))[0].strip()


def _minutes(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.0f} min"
