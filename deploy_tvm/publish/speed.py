"""The tables of ``docs/speed.md``: machines side by side, each the rows of one results file and set of kernels."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy_tvm.bench.measure import FLOAT, INTEGER
from deploy_tvm.publish.suite import read

PAGE = Path(__file__).parents[2] / "docs" / "speed.md"
_TABLES = re.compile(r"(<!-- speed -->\n).*?(<!-- /speed -->)", re.DOTALL)
_FEW_BITS = re.compile(r"(<!-- few bits -->\n).*?(<!-- /few bits -->)", re.DOTALL)
# Runtimes beside our weights of few bits: the one whose product has such weights, and its 8 bits.
FEW_BITS = {
    "onnxruntime_nbits_4": "MatMulNBits, 4 bits",
    "onnxruntime_nbits_2": "MatMulNBits, 2 bits",
    "onnxruntime_dynamic_int8": "dynamic int8",
}
HEADS = ("us", "of floor", "GB/s", "/ fastest other")
# What a table has in common, and what tells its rows apart.
SHARED, OWN = ("cell", "steps", "batch"), ("size", "bits")


@dataclass(frozen=True)
class Machine:
    """One kind of machine with one set of kernels; rows by ``SHARED`` and ``OWN``."""

    letter: str
    kind: str
    cpu: str
    kernels: str
    rows: dict[tuple[Any, ...], dict[str, Any]]

    def described(self) -> str:
        """What its letter stands for."""
        rows = self.rows.values()
        commits = ", ".join(dict.fromkeys(str(row["commit"])[:12] for row in rows))
        wrong, compared = (sum(row["mismatches"][key] for row in rows) for key in ("count", "compared"))
        return (
            f"- **{self.letter}**: {self.cpu} (`bench_{self.kind}.json`), kernels {self.kernels}; {len(rows)} rows, "
            f"{wrong} of {compared:,} integers differ from the interpreter's. Commit {commits}."
        )


def write(page: Path, folder: Path) -> None:
    """Write the page's tables anew from the results in ``folder``."""
    page.write_text(with_tables(page.read_text(encoding="utf-8"), folder), encoding="utf-8")


def with_tables(text: str, folder: Path) -> str:
    """``text`` with what stands between its markers replaced."""
    machines = _machines(folder)
    text = _TABLES.sub(lambda match: match[1] + _tables(machines) + match[2], text)
    return _FEW_BITS.sub(lambda match: match[1] + _few_bits(machines) + match[2], text)


def _machines(folder: Path) -> list[Machine]:
    found: list[Machine] = []
    for results in map(read, sorted(folder.glob("bench_*.json"))):
        for kernels in dict.fromkeys(row["kernels"] for row in results["rows"].values()):
            rows = {_key(row): row for row in results["rows"].values() if row["kernels"] == kernels}
            found.append(Machine(chr(ord("A") + len(found)), results["kind"], results["cpu"], kernels, rows))
    return found


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in (*SHARED, *OWN))


def _tables(machines: list[Machine]) -> str:
    keys = sorted({key for machine in machines for key in machine.rows}, key=lambda key: (*key[:-1], -key[-1]))
    if not keys:
        return "(no results yet)\n"
    lines = [machine.described() for machine in machines]
    for (cell, steps, batch), group in itertools.groupby(keys, key=lambda key: key[: len(SHARED)]):
        lines += ["", f"{cell.upper()}, {steps} step{'s' * (steps > 1)} a call, batch {batch}:", ""]
        heads = ["size, weights", *(f"{machine.letter}: {head}" for machine in machines for head in HEADS)]
        lines += ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
        for key in group:
            cells = [cell for machine in machines for cell in _cells(machine.rows.get(key))]
            lines.append("| " + " | ".join([f"{key[-2]}, W{key[-1]}", *cells]) + " |")
    return "\n".join([*lines, ""])


def _few_bits(machines: list[Machine]) -> str:
    """Rows that were measured beside MatMulNBits: microseconds a step."""
    heads = ("machine", "layer", "steps a call", "ours", *FEW_BITS.values())
    lines = ["| " + " | ".join(heads) + " |", "|---|---" + "|---:" * (len(heads) - 2) + "|"]
    for machine in machines:
        for row in machine.rows.values():
            us = row["us_per_step"]
            if us.get("onnxruntime_nbits_4") is None:
                continue
            times = ["" if us.get(name) is None else f"{us[name]:.1f}" for name in (INTEGER, *FEW_BITS)]
            layer = f"{row['cell'].upper()} {row['size']}, W{row['bits']}"
            lines.append("| " + " | ".join([machine.letter, layer, str(row["steps"]), *times]) + " |")
    return "\n".join([*lines, ""])


def _cells(row: dict[str, Any] | None) -> list[str]:
    """Of one machine, by ``HEADS``; empty where it has no such row."""
    if row is None:
        return [""] * len(HEADS)
    ours, share = row["us_per_step"][INTEGER], row["floor"]["share"]
    others = {name: us for name, us in row["us_per_step"].items() if us is not None and name not in (INTEGER, FLOAT)}
    fastest = min(others, key=others.__getitem__, default=None)
    ratio = "" if fastest is None else f"{ours / others[fastest]:.2f} {fastest}"
    return [f"{ours:.1f}", "" if share is None else f"{share:.0%}", f"{row['gb_per_s']:.1f}", ratio]
