"""The README's tables, written from `docs/results/*.json` between their markers, never by hand.

A marker `<!-- table:NAME -->` names an experiment: `docs/results/NAME.json`, as `pipelines.publish` writes it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from irnn.errors import IrnnError
from pipelines.report import rows_of

README = Path(__file__).parents[1] / "README.md"
_TABLE = re.compile(r"(<!-- table:(\w+) -->\n).*?(<!-- /table -->)", re.DOTALL)
_COLUMNS = ("stage", "perplexity valid", "test", "size", "us/token", "speed-up", "mismatches")


def write_tables(readme: Path, docs: Path) -> None:
    """Write every table of `readme` anew from the results in `docs`."""
    readme.write_text(with_tables(readme.read_text(encoding="utf-8"), docs), encoding="utf-8")


def with_tables(text: str, docs: Path) -> str:
    """`text` with the content of each pair of markers replaced; a table without results says so."""
    return _TABLE.sub(lambda match: match[1] + _table(match[2], docs) + match[3], text)


def _table(name: str, docs: Path) -> str:
    path = docs / f"{name}.json"
    if not path.is_file():
        return "(no results yet)\n"
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        return _experiment(results)
    except (json.JSONDecodeError, KeyError) as error:
        raise IrnnError(f"{path} is damaged ({error!r}); publish the experiment again") from None


def _experiment(results: dict[str, Any]) -> str:
    seeds = results["seeds"]
    first = next(iter(seeds.values()))
    trained = ", ".join(f"{stage} {epochs}" for stage, epochs in first["epochs"].items())
    lines = [
        "| " + " | ".join(_COLUMNS) + " |",
        "|---" + "|---:" * (len(_COLUMNS) - 1) + "|",
        *("| " + " | ".join(row) + " |" for row in rows_of(results)),
        "",
        f"Seeds: {', '.join(seeds)}. Epochs: {trained}. Commit {first['commit'][:12]}.",
        "",
    ]
    return "\n".join(lines)
