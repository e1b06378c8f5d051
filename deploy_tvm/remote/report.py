"""What a device did, as a table for people."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

EMULATED = "emulated: these times are the emulator's and say nothing about a device"


def report(result: dict[str, Any]) -> RenderableType:
    """The table of what ``bench_device`` returned."""
    ((target, entry),) = result["targets"].items()
    device, emulated = result["device"], result["device"]["emulated"]
    title = f"{target} on {device['name']}, one token a call" + (f"\n{EMULATED}" if emulated else "")
    table = Table(title=title, title_justify="left")
    table.add_column("program")
    unit = "emulated us" if emulated else "us"
    for heading in (f"{unit} per token", "p95", "tokens/s", "library", "peak memory", "float / this"):
        table.add_column(heading, justify="right")
    for name, row in (("integer", entry), ("float", entry.get("float"))):
        if row is None:
            continue
        ratio = f"{entry['speed_up']:.2f}" if name == "integer" and "speed_up" in entry else ""
        table.add_row(
            name, f"{row['us_per_token']:.1f}", f"{row['p95_us_per_token']:.1f}",
            "-" if row["tokens_per_second"] is None else f"{row['tokens_per_second']:.0f}",
            f"{row['bytes'] / 1e6:.2f} MB", row["memory_peak"] or "-", ratio,
        )  # fmt: skip
    count, compared = entry["mismatches"]["count"], entry["mismatches"]["compared"]
    lines = [f"{count} mismatches with the interpreter in {compared} integers ({result['tokens']} tokens)"]
    described = device["described"]
    if described is None and emulated:
        lines.append("run by the bundle's own runner: there is no TVM runtime for this board")
    elif described is None:
        lines.append("the device runs TVM's own server, which does not describe itself")
    else:
        lines.append(f"{described['cpu']}, {described['system']}, TVM {described['tvm']}")
    return Group(table, *(Text(line) for line in lines))
