"""The table of orthogonal layers in ``docs/orthogonal.md``: integers beside float of other runtimes and LSTMs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy_tvm.bench.measure import FLOAT, INTEGER
from deploy_tvm.publish.suite import read

PAGE = Path(__file__).parents[2] / "docs" / "orthogonal.md"
_TABLE = re.compile(r"(<!-- speed -->\n).*?(<!-- /speed -->)", re.DOTALL)
CELL, OTHER = "ornn", "lstm"
# Float of the same layer by other runtimes, measured in the same rounds.
PEERS = {FLOAT: "TVM float", "onnxruntime_fp32": "ONNX Runtime float", "torch_fp32": "PyTorch float"}
HEADS = ("hidden, weights", "us", *PEERS.values(), "/ fastest float", "LSTM of these bits", "LSTM W8")


def write(page: Path, folder: Path) -> None:
    """Write the page's table anew from the results in ``folder``."""
    page.write_text(with_table(page.read_text(encoding="utf-8"), folder), encoding="utf-8")


def with_table(text: str, folder: Path) -> str:
    """``text`` with what stands between its markers replaced."""
    return _TABLE.sub(lambda match: match[1] + _tables(folder) + match[2], text)


def _tables(folder: Path) -> str:
    lines: list[str] = []
    for results in map(read, sorted(folder.glob("bench_*.json"))):
        rows = [row for row in results["rows"].values() if row["cell"] == CELL]
        for key, group in itertools.groupby(sorted(rows, key=_order), key=_page):
            lines += _table(results, *key, list(group))
    return "\n".join(lines or ["(no results yet)", ""])


def _page(row: dict[str, Any]) -> tuple[str, int, int]:
    return row["kernels"], row["steps"], row["batch"]


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    return *_page(row), row["size"], -row["bits"]


def _table(results: dict[str, Any], kernels: str, steps: int, batch: int, rows: list[dict[str, Any]]) -> Iterator[str]:
    lstms = {(*_page(row), row["size"], row["bits"]): row for row in results["rows"].values() if row["cell"] == OTHER}
    wrong, compared = (sum(row["mismatches"][key] for row in rows) for key in ("count", "compared"))
    loads = [row["load_average"][0] for row in rows]
    commits = ", ".join(dict.fromkeys(str(row["commit"])[:12] for row in rows))
    yield (
        f"{results['cpu']} (`bench_{results['kind']}.json`), kernels {kernels}, {steps} step{'s' * (steps > 1)} a "
        f"call, batch {batch}; {wrong} of {compared:,} integers differ from the interpreter's; load average "
        f"{min(loads):.1f} to {max(loads):.1f}; commit {commits}:"
    )
    yield from ("", "| " + " | ".join(HEADS) + " |", "|---" + "|---:" * (len(HEADS) - 1) + "|")
    for row in rows:
        us = row["us_per_step"]
        floats = [us.get(name) for name in PEERS]
        known = [value for value in floats if value is not None]
        beside = [lstms.get((kernels, steps, batch, row["size"], bits)) for bits in (row["bits"], 8)]
        name = "Hadamard, 1 bit" if row["bits"] == 1 else f"W{row['bits']}"
        cells = [
            f"{row['size']}, {name}", f"{us[INTEGER]:.2f}", *map(_time, floats),
            f"{us[INTEGER] / min(known):.2f}" if known else "",
            *(_time(None if other is None else other["us_per_step"][INTEGER]) for other in beside),
        ]  # fmt: skip
        yield "| " + " | ".join(cells) + " |"
    yield ""


def _time(us: float | None) -> str:
    return "" if us is None else f"{us:.2f}"
