"""Benchmark results as tables for people."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text


def report(result: dict[str, Any]) -> RenderableType:
    """The tables of what ``bench`` returned; of a layer with random weights it holds the description."""
    parts: list[RenderableType]
    if result["kind"] == "recognizer":
        return _recognizer(result)
    if result["kind"] == "program":
        parts = [_table(_steps(result["name"], result), result, "us_per_step", "us per step")]
    elif result["kind"] == "layer":
        layer = result["layer"]
        name = f"{layer['cell']} {layer['input']} -> {layer['hidden']}, {_weights(layer)}"
        extras = [f"{layer['layers']} layers"] * (layer["layers"] > 1) + ["bidirectional"] * layer["bidirectional"]
        name = ", ".join([name, *extras, *([f"norm {layer['norm']}"] if layer["norm"] else [])])
        parts = [_table(_steps(name, result), result, "us_per_step", "us per step")]
    else:
        parts = [
            _table(f"language model, {calls} a call{_of_a_batch(part)}", part, "us_per_token", "us per token")
            for calls, part in (("one token", result), (_counted(result["steps"], "token"), result["sequence"]))
        ]
    parts += _facts(result, "weights", result["weight_bytes"], result["machine"])
    return Group(*parts)


def _steps(name: str, result: dict[str, Any]) -> str:
    return f"{name}; {_counted(result['steps'], 'step')} a call{_of_a_batch(result)}"


def _weights(layer: dict[str, Any]) -> str:
    """W and bits of uniform weights, a code's name and its bits, and how many codes are read."""
    code = "W" if layer["code"] == "uniform" else f"{layer['code']} "
    return f"{code}{layer['weight_bits']}" + (f", {layer['codes']} codes read" if layer["codes"] else "")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count > 1)}"


def _of_a_batch(result: dict[str, Any]) -> str:
    """What a title says of the batch, whose times are those of a sequence."""
    return f", batch {result['batch']}: a sequence's share" if result["batch"] > 1 else ""


def _recognizer(result: dict[str, Any]) -> RenderableType:
    """Encoder, decoder step, and the real-time factor that they make together."""
    frames, units = result["frames"], result["units"]
    encoder, decoder = result["encoder"], result["decoder"]
    parts = [
        _table(f"{result['name']}: encoder, {frames} frames a call", encoder, "us_per_utterance", "us a call"),
        _table(f"decoder, one unit a call, {result['places']} places", decoder, "us_per_unit", "us per unit"),
    ]
    table = Table(title=f"{result['seconds_of_speech']:g} s of speech, {units} units", title_justify="left")
    for heading in ("runtime", "real-time factor", "this / integer"):
        table.add_column(heading, justify="left" if heading == "runtime" else "right")
    for name, factor in result["real_time_factor"].items():
        speed_up = result["speed_up"].get(name)
        shown = "-" if factor is None else f"{factor:.5f}"
        table.add_row(name, shown, "" if speed_up is None else f"{speed_up:.2f}")
    return Group(*parts, table, *_facts(result, "programs", result["program_bytes"], decoder["machine"]))


def _facts(result: dict[str, Any], what: str, sizes: dict[str, int], machine: dict[str, Any]) -> list[Text]:
    count, compared = result["mismatches"]["count"], result["mismatches"]["compared"]
    listed = ", ".join(f"{kind} {size / 1e6:.2f} MB" for kind, size in sizes.items())
    lines = [
        f"{count} mismatches with the interpreter in {compared} integers; {what}: {listed}",
        f"{machine['cpu']} ({', '.join(machine['flags'])}), core {machine['core']}, one thread, batch "
        f"{result['batch']}, kernels {result['kernels']}, load average {machine['load_average']}",
    ]
    return [Text(line) for line in lines]


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
    if limit["us_per_step"] is None:
        table.add_row("floor", "-", style="dim")
        return Group(table, Text(f"floor: {limit['reason']}\n", style="dim"))
    reached = f"integer: {limit['share']:.0%} of the floor, {result['gb_per_s']:.1f} GB/s of weights"
    table.add_row("floor", f"{limit['us_per_step']:.1f}", "", "", "", Text(reached), style="dim")
    return Group(table, Text(f"floor: {limit['explanation']}\n", style="dim"))
