"""The tables of the README and of PAGES, written from `docs/results/*.json` between their markers, never by hand.

A marker `<!-- table:NAME -->` names an experiment: `docs/results/NAME.json`, as `pipelines.publish` writes it. A marker
`<!-- bench:NAME -->` names benchmarks of one layer: `docs/results/NAME_*.json`, each written by
`python -m deploy_tvm bench --layer ... --json FILE`. A marker `<!-- rows:NAME -->` names a comparison:
`docs/results/NAME.json`, as `python -m pipelines.publish --compare NAME` writes it; `<!-- front:NAME -->` a search's
front, as `--front NAME` writes it; `<!-- examples:NAME -->` what an experiment's integers answered. A marker
`<!-- steps:NAME -->` names times of training steps: `docs/results/NAME_*.json`, each written by
`pipelines.step_times` with `json=FILE`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from irnn.errors import IrnnError
from pipelines.report.comparison import table_of_rows
from pipelines.report.front import table_of_front
from pipelines.report.report import columns_of, rows_of

README = Path(__file__).parents[2] / "README.md"
PAGES = ("mogrifier.md", "orthogonal.md", "scale.md", "speech.md")  # of docs
_TABLE = re.compile(r"(<!-- (table|bench|rows|front|examples|steps):(\w+) -->\n).*?(<!-- /table -->)", re.DOTALL)


def write_tables(readme: Path, docs: Path) -> None:
    """Write every table of the page `readme` anew from the results in `docs`."""
    readme.write_text(with_tables(readme.read_text(encoding="utf-8"), docs), encoding="utf-8")


def with_tables(text: str, docs: Path) -> str:
    """`text` with the content of each pair of markers replaced; a table without results says so."""
    return _TABLE.sub(lambda match: match[1] + _content(match[2], match[3], docs) + match[4], text)


def _content(kind: str, name: str, docs: Path) -> str:
    paths = sorted(docs.glob(f"{name}_*.json")) if kind in ("bench", "steps") else [docs / f"{name}.json"]
    results = [_read(path) for path in paths if path.is_file()]
    if not results:
        return "(no results yet)\n"
    try:
        if kind == "rows":
            return table_of_rows(results[0]["rows"])
        if kind == "front":
            return table_of_front(results[0])
        if kind == "steps":
            return _steps(results)
        if kind == "examples":
            return _examples(results[0])
        return _experiment(results[0]) if kind == "table" else _benchmarks(results)
    except KeyError as error:
        raise IrnnError(f"{paths[0]} lacks {error}; publish the results again") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise IrnnError(f"{path} is damaged ({error}); publish the results again") from None


def _experiment(results: dict[str, Any]) -> str:
    seeds = results["seeds"]
    first = next(iter(seeds.values()))
    columns = columns_of(results)
    trained = ", ".join(f"{stage} {epochs}" for stage, epochs in first["epochs"].items())
    commits = dict.fromkeys(run["commit"][:12] for run in seeds.values())
    lines = [
        "| " + " | ".join(columns) + " |",
        "|---" + "|---:" * (len(columns) - 1) + "|",
        *("| " + " | ".join(row) + " |" for row in rows_of(results)),
        "",
        f"Seeds: {', '.join(seeds)}. Epochs: {trained}. Commit {', '.join(commits)}.",
        "",
    ]
    return "\n".join(lines)


def _examples(results: dict[str, Any]) -> str:
    """Inputs, targets and the program's outputs of every seed."""
    lines = ["| seed | input | target | output of the integers |", "|---|---|---|---|"]
    for seed, run in results["seeds"].items():
        lines += [f"| {seed} | {each['input']} | {each['target']} | {each['output']} |" for each in run["examples"]]
    return "\n".join([*lines, ""])


def _steps(results: list[dict[str, Any]]) -> str:
    """One row a network, one column a measurement; in brackets how many float steps a step takes."""
    networks = list(dict.fromkeys(name for result in results for name in result["ms_per_step"]))
    heads = [f"{result['experiment']}, {result['precision']}" for result in results]
    lines = ["| milliseconds a training step | " + " | ".join(heads) + " |", "|---" + "|---:" * len(heads) + "|"]
    for name in networks:
        found = [(result["ms_per_step"].get(name), result["over_float"].get(name)) for result in results]
        cells = ["" if ms is None else f"{ms:.0f} ({ratio:.2f})" for ms, ratio in found]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for result in results:
        machine = result["machine"]
        versions = ", ".join(f"{library} {result['versions'][library]}" for library in ("torch", "brevitas")
                             if library in result["versions"])  # fmt: skip
        lines += [
            "",
            f"{result['experiment']}: {machine['cpu']} ({', '.join(machine['flags'])}), one thread, load average "
            f"{machine['load_average'][0]}, {versions}, commit {result['commit'][:12]}.",
        ]
    return "\n".join([*lines, ""])


def _benchmarks(results: list[dict[str, Any]]) -> str:
    """One row a runtime, one column a measurement; in brackets how much of that runtime's time the integers take."""
    results = sorted(results, key=lambda result: (-result["steps"], -result["weight_bits"]))
    runtimes = list(dict.fromkeys(name for result in results for name in result["us_per_step"]))
    heads = [f"{result['steps']} steps a call, W{result['weight_bits']}" for result in results]
    lines = ["| us a step | " + " | ".join(heads) + " |", "|---" + "|---:" * len(heads) + "|"]
    for runtime in runtimes:
        cells = [_time(result["us_per_step"].get(runtime), result["us_per_step"]["tvm_integer"]) for result in results]
        lines.append(f"| {runtime} | " + " | ".join(cells) + " |")
    lines.append("| floor | " + " | ".join(f"{result['floor']['us_per_step']:.1f}" for result in results) + " |")
    wrong = sum(result["mismatches"]["count"] for result in results)
    compared = sum(result["mismatches"]["compared"] for result in results)
    machine = results[0]["machine"]["cpu"]
    lines += ["", f"{machine}, one thread, batch 1; {wrong} of {compared} integers differ from the interpreter's.", ""]
    return "\n".join(lines)


def _time(found: float | None, integer: float) -> str:
    if found is None:
        return "not measured"
    return f"{found:.1f}" if found == integer else f"{found:.1f} ({integer / found:.2f})"
