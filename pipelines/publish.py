"""`python -m pipelines.publish [RUN_FOLDER ...]`: put the results of runs into `docs/results/<experiment>.json`.

Runs that differ only in their seed are joined. The file has the form of a run's `results.json`, with perplexities and
times averaged and mismatches added up over the seeds, and every seed's own results under `seeds`. With
`--compare NAME RUN_FOLDER ...` the runs become rows of `docs/results/<NAME>.json`, one a quantizer
(`pipelines.report.comparison`), beside the experiment's own figures where NAME is one; `--front NAME SWEEP_FOLDER`
takes over what a search has found. The tables of the README and of its pages, and docs/recipes.md are written
anew from these files.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from irnn.errors import IrnnError
from pipelines import problems
from pipelines.core.manifest import write_json
from pipelines.report.comparison import joined
from pipelines.report.front import FRONT
from pipelines.report.readme import PAGES, README, write_tables
from pipelines.report.recipes import PAGE, recipes_page
from pipelines.report.report import read_results

DOCS = Path(__file__).parents[1] / "docs" / "results"
EXPERIMENTS = Path(__file__).parents[1] / "conf" / "experiment"


def publish(folders: list[Path], docs: Path) -> list[Path]:
    """Join the runs in `folders` with what `docs` holds; the files written.

    A seed that is published again replaces its former results. Runs of another configuration are an `IrnnError`.
    """
    runs = [read_results(folder) for folder in folders]
    written = []
    for experiment in dict.fromkeys(run["experiment"] for run in runs):
        path = docs / f"{experiment}.json"
        former = _read(path)
        seeds = former.get("seeds", {})
        seeds |= {str(run["seed"]): run for run in runs if run["experiment"] == experiment}
        configurations = {seed: run["configuration"] for seed, run in seeds.items()}
        if len(set(configurations.values())) > 1:
            raise IrnnError(
                f"{experiment}: seeds {', '.join(configurations)} ran with different configurations "
                f"({', '.join(configurations.values())}); delete {path} or publish runs of one configuration together"
            )
        seeds = dict(sorted(seeds.items(), key=lambda item: int(item[0])))
        beside = {"rows": former["rows"]} if "rows" in former else {}
        write_json(path, {"experiment": experiment, **_joined(list(seeds.values())), **beside, "seeds": seeds})
        written.append(path)
    return written


def publish_rows(folders: list[Path], path: Path) -> Path:
    """Add the runs in `folders` to the rows of the comparison `path`, which is returned; where an experiment's own
    figures stand in that file, the rows stand beside them."""
    former = _read(path)
    write_json(path, former | {"rows": joined(former.get("rows", []), map(read_results, folders))})
    return path


def publish_front(folder: Path, path: Path) -> Path:
    """Put the front of the search in `folder` (`sweep=mixed_bits`) to `path`, which is returned."""
    source = folder / FRONT
    if not source.is_file():
        raise IrnnError(f"{source} is not there: give the folder of a search that has ended (sweep=mixed_bits)")
    write_json(path, json.loads(source.read_text(encoding="utf-8")))
    return path


def _read(path: Path) -> dict[str, Any]:
    """What a published file holds; nothing where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _joined(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What a reader wants to know of all seeds at once; what a run lacks is null."""
    kind = problems.find(runs[0]["problem"])
    shared = [stage for stage in runs[0]["stages"] if all(stage in run["stages"] for run in runs)]
    return {
        "problem": runs[0]["problem"],
        "stages": {stage: _mean([run["stages"][stage] for run in runs]) for stage in shared},
        "mismatches": _sum([run["mismatches"] for run in runs]),
        "size_bytes": runs[0]["size_bytes"],
        kind.timing: _mean([run[kind.timing] for run in runs]),
        # What is more than a figure, such as an interval, has no mean over several seeds: there it stands with them.
        **{key: runs[0][key] for key in kind.further if len(runs) == 1 and key in runs[0]},
    }


def _mean(rows: list[dict[str, float | None]]) -> dict[str, float | None]:
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    return {key: _mean_of(values) for key, values in columns.items()}


def _mean_of(values: list[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return statistics.fmean(there) if len(there) == len(values) else None


def _sum(rows: list[dict[str, dict[str, int] | None] | None]) -> dict[str, dict[str, int] | None] | None:
    there = [row for row in rows if row is not None]
    if len(there) < len(rows):
        return None
    return {pair: _sum_of([row[pair] for row in there]) for pair in there[0]}


def _sum_of(counts: list[dict[str, int] | None]) -> dict[str, int] | None:
    there = [count for count in counts if count is not None]
    if len(there) < len(counts):
        return None
    return {key: sum(count[key] for count in there) for key in ("count", "compared")}


def main(arguments: list[str]) -> int:
    """Exit code: 0, 1 for bad input (one line on stderr), 2 for a wrong command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.publish", description="Results of runs into docs/results."
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="RUN_FOLDER", help="a complete run's own folder")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--compare", metavar="NAME", help="the runs become rows of docs/results/NAME.json")
    ways.add_argument(
        "--front", metavar="NAME", help="the one folder is a search's: its front is docs/results/NAME.json"
    )
    options = parser.parse_args(arguments)
    try:
        if options.compare and options.folders:
            print(publish_rows(options.folders, DOCS / f"{options.compare}.json"))
        elif options.front and len(options.folders) == 1:
            print(publish_front(options.folders[0], DOCS / f"{options.front}.json"))
        elif options.compare or options.front:
            parser.error("--compare takes the folders of complete runs, --front the folder of one search")
        else:
            for path in publish(options.folders, DOCS):
                print(path)
        for page in (README, *(DOCS.parent / name for name in PAGES)):
            write_tables(page, DOCS)
        (DOCS.parent / PAGE).write_text(recipes_page(EXPERIMENTS, DOCS), encoding="utf-8")
    except IrnnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
