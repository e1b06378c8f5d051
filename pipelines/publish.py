"""`python -m pipelines.publish RUN_FOLDER ...`: put the results of runs into `docs/results/<experiment>.json`.

Runs that differ only in their seed are joined: the file holds every seed's results and their mean perplexities.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from irnn.errors import IrnnError
from pipelines.manifest import write_json
from pipelines.report import RESULTS

DOCS = Path(__file__).parents[1] / "docs" / "results"


def publish(folders: list[Path], docs: Path) -> list[Path]:
    """Join the runs in `folders` with what `docs` holds; the files written.

    A seed that is published again replaces its former results. Runs of another configuration are an `IrnnError`.
    """
    runs = [_read(folder) for folder in folders]
    written = []
    for experiment in dict.fromkeys(run["experiment"] for run in runs):
        path = docs / f"{experiment}.json"
        seeds = json.loads(path.read_text(encoding="utf-8"))["seeds"] if path.is_file() else {}
        seeds |= {str(run["seed"]): run for run in runs if run["experiment"] == experiment}
        configurations = {seed: run["configuration"] for seed, run in seeds.items()}
        if len(set(configurations.values())) > 1:
            raise IrnnError(
                f"{experiment}: seeds {', '.join(configurations)} ran with different configurations "
                f"({', '.join(configurations.values())}); delete {path} or publish runs of one configuration together"
            )
        seeds = dict(sorted(seeds.items(), key=lambda item: int(item[0])))
        write_json(path, {"experiment": experiment, "mean": _mean(list(seeds.values())), "seeds": seeds})
        written.append(path)
    return written


def _read(folder: Path) -> dict[str, Any]:
    path = folder if folder.name == RESULTS else folder / RESULTS
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise IrnnError(f"{folder} holds no {RESULTS}: give the folder of a complete run") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise IrnnError(f"{path} is damaged; run the experiment again, finished stages are not repeated") from None


def _mean(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean perplexities by stage, over the stages that all runs have."""
    shared = [stage for stage in runs[0]["stages"] if all(stage in run["stages"] for run in runs)]
    return {
        stage: {key: statistics.fmean(run["stages"][stage][key] for run in runs) for key in runs[0]["stages"][stage]}
        for stage in shared
    }


def main(arguments: list[str]) -> int:
    """Exit code: 0, 1 for bad input (one line on stderr), 2 for a wrong command line."""
    if not arguments or any(argument.startswith("-") for argument in arguments):
        print("usage: python -m pipelines.publish RUN_FOLDER ...", file=sys.stderr)
        return 2
    try:
        for path in publish([Path(argument) for argument in arguments], DOCS):
            print(path)
    except IrnnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
