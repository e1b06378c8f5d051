"""Static figures as tables for people."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deploy_tvm.bench.measure import FLOAT, INTEGER

REMARK = "no times: counted under emulation and modelled; docs/devices.md says what such figures can tell"


def report(result: dict[str, Any]) -> RenderableType:
    """The tables of what ``static_figures`` returned."""
    single, sequence = result["instructions_per_step"], result["sequence"]
    title = f"instructions per step, {result['target']} ({result['kernels']})"
    counted = Table(title=title, title_justify="left")
    counted.add_column("")
    for heading in ("1 step a call", "integer / this", f"{sequence['steps']} steps a call"):
        counted.add_column(heading, justify="right")
    for name, value in single.items():
        many = sequence["instructions_per_step"].get(name)
        ratio = f"{single[INTEGER] / value:.3f}"
        counted.add_row(name, f"{value:,.0f}", ratio, "" if many is None else f"{many:,.0f}")
    modelled = Table(
        title="cycles per step in the inner kernels (llvm-mca), weights in the cache", title_justify="left"
    )
    modelled.add_column("core")
    for heading in ("integer", "float", "us to read the weights", "float", "at the peak bandwidth of"):
        modelled.add_column(heading, justify="left" if heading.startswith("at") else "right")
    floats = result["mca_cycles_per_step_float"]
    for core, cycles in result["mca_cycles_per_step"].items():
        memory = result["memory"][core]
        read = memory["us_per_step"]
        modelled.add_row(
            core, f"{cycles:,.0f}", "" if floats is None else f"{floats[core]:,.0f}", f"{read[INTEGER]:.0f}",
            "" if FLOAT not in read else f"{read[FLOAT]:.0f}", memory["board"],
        )  # fmt: skip
    count, compared = result["mismatches"]["count"], result["mismatches"]["compared"]
    lines = [f"{name}: {reason}" for name, reason in result["absent"].items()]
    lines += [f"{count} mismatches with the interpreter in {compared} integers", REMARK]
    return Group(counted, modelled, *(Text(line, style="dim") for line in lines))


def profile_report(result: dict[str, Any]) -> RenderableType:
    """The table of what ``profile`` returned."""
    total = result["instructions_per_step"]
    steps = "one step" if result["steps"] == 1 else f"{result['steps']} steps"
    table = Table(title=f"instructions per step, {steps} a call, {result['kernels']}", title_justify="left")
    table.add_column("")
    for heading in ("instructions", "share"):
        table.add_column(heading, justify="right")
    for name, count in sorted(result["parts"].items(), key=lambda item: -item[1]):
        table.add_row(name, f"{count:,.0f}", f"{count / total:.1%}")
    table.add_section()
    table.add_row("all", f"{total:,.0f}", "")
    lines = [f"{result['machine']['cpu']}, callgrind (valgrind {result['versions']['valgrind']}): no times"]
    return Group(table, *(Text(line, style="dim") for line in lines))
