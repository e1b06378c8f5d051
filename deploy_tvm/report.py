"""Benchmark results as tables for people."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text


def report(result: dict[str, Any]) -> RenderableType:
    """The tables of what ``bench_layer`` or ``bench_model`` returned."""
    parts: list[RenderableType]
    if result["kind"] == "layer":
        layer = result["layer"]
        name = f"{layer['cell']} {layer['input']} -> {layer['hidden']}, W{layer['weight_bits']}"
        extras = [f"{layer['layers']} layers"] * (layer["layers"] > 1) + ["bidirectional"] * layer["bidirectional"]
        name = ", ".join([name, *extras, *([f"norm {layer['norm']}"] if layer["norm"] else [])])
        steps = result["steps"]
        parts = [_table(f"{name}; {steps} step{'s' * (steps > 1)} a call", result, "us_per_step", "us per step")]
    else:
        sequence = result["sequence"]
        parts = [
            _table("language model, one token a call", result, "us_per_token", "us per token"),
            _table(f"language model, {result['steps']} tokens a call", sequence, "us_per_token", "us per token"),
        ]
    count, compared = result["mismatches"]["count"], result["mismatches"]["compared"]
    machine = result["machine"]
    sizes = ", ".join(f"{kind} {size / 1e6:.2f} MB" for kind, size in result["weight_bytes"].items())
    lines = [
        f"{count} mismatches with the interpreter in {compared} integers; weights: {sizes}",
        f"{machine['cpu']} ({', '.join(machine['flags'])}), core {machine['core']}, one thread, batch 1, "
        f"load average {machine['load_average']}",
    ]
    parts += [Text(line) for line in lines]
    return Group(*parts)


def _table(title: str, result: dict[str, Any], key: str, unit: str) -> Group:
    table = Table(title=title, title_justify="left")
    table.add_column("runtime")
    for heading in (unit, "min", "p95", "integer / this"):
        table.add_column(heading, justify="right")
    table.add_column("remark", overflow="fold")
    for name, value in result[key].items():
        if value is None:
            table.add_row(name, "-", "", "", "", Text(result["reasons"].get(name, "")))
            continue
        spread, ratio = result["spread"][name], result["ratios"].get(f"tvm_integer/{name}")
        remark = result["chosen"].get(name, "")
        numbers = [f"{number:.1f}" for number in (value, spread["min"], spread["p95"])]
        table.add_row(name, *numbers, "" if ratio is None else f"{ratio:.3f}", remark)
    limit = result["floor"]
    floor = "-" if limit["us_per_step"] is None else f"{limit['us_per_step']:.1f}"
    table.add_row("floor", floor, style="dim")
    explanation = Text(f"floor: {limit.get('explanation') or limit['reason']}\n", style="dim")
    return Group(table, explanation)
