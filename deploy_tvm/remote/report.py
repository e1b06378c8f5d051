"""What a device did, as a table for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

EMULATED = "emulated: these times are the emulator's and say nothing about a device"


@dataclass(frozen=True)
class _Content:
    """compared: the golden sequence.  timed: for the title.  per: what a time is for.  rate: a column's heading."""

    compared: str
    timed: str
    per: str
    rate: str
    rows: list[list[str]]


def report(result: dict[str, Any]) -> RenderableType:
    """The table of what ``bench_device`` returned."""
    ((target, entry),) = result["targets"].items()
    device, emulated = result["device"], result["device"]["emulated"]
    content = (_recognizer if result["kind"] == "device_recognizer" else _language_model)(result, entry)
    title = f"{target} on {device['name']}, {content.timed}" + (f"\n{EMULATED}" if emulated else "")
    table = Table(title=title, title_justify="left")
    table.add_column("program")
    unit = "emulated us" if emulated else "us"
    for heading in (f"{unit} {content.per}", "p95", content.rate, "library", "peak memory", "float / this"):
        table.add_column(heading, justify="right")
    for row in content.rows:
        table.add_row(*row)
    count, compared = entry["mismatches"]["count"], entry["mismatches"]["compared"]
    lines = [f"{count} mismatches with the interpreter in {compared} integers ({content.compared})"]
    described = device["described"]
    if described is None and emulated:
        lines.append("run by the bundle's own runner: there is no TVM runtime for this board")
    elif described is None:
        lines.append("the device runs TVM's own server, which does not describe itself")
    else:
        lines.append(f"{described['cpu']}, {described['system']}, TVM {described['tvm']}")
    if len(device["servers"]) > 1:
        lines.append(
            f"the tracker gave {len(device['servers'])} devices ({', '.join(device['servers'])}): times that stand "
            "side by side are of different ones; a device with a key of its own (serve --key) is measured alone"
        )
    return Group(table, *(Text(line) for line in lines))


def _language_model(result: dict[str, Any], entry: dict[str, Any]) -> _Content:
    rows = [
        [name, *_times(program, "token"), _number(program["tokens_per_second"], 0), *_sizes(program),
         _ratio(program)]
        for name, program in _programs(entry)
    ]  # fmt: skip
    return _Content(f"{result['tokens']} tokens", "one token a call", "per token", "tokens/s", rows)


def _recognizer(result: dict[str, Any], entry: dict[str, Any]) -> _Content:
    """Encoder, decoder, and both for the whole utterance."""
    rows = []
    for name, program in _programs(entry):
        for part, made in (("encoder", "utterance"), ("decoder", "unit")):
            rows.append([f"{name} {part}", *_times(program[part], made), "", *_sizes(program[part]), ""])
        factor = _number(program["real_time_factor"], 5)
        rows.append([f"{name}, both", "", "", factor, _size(program), "", _ratio(program)])
    length = f"{result['frames']} frames, {result['units']} units"
    timed = f"{result['seconds_of_speech']:g} s of speech, {result['units']} units"
    return _Content(length, timed, "a call", "real-time factor", rows)


def _programs(entry: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [("integer", entry), *([("float", entry["float"])] if "float" in entry else [])]


def _times(figures: dict[str, Any], made: str) -> list[str]:
    return [f"{figures[f'us_per_{made}']:.1f}", f"{figures[f'p95_us_per_{made}']:.1f}"]


def _sizes(figures: dict[str, Any]) -> list[str]:
    return [_size(figures), figures["memory_peak"] or "-"]


def _size(figures: dict[str, Any]) -> str:
    return f"{figures['bytes'] / 1e6:.2f} MB"


def _ratio(program: dict[str, Any]) -> str:
    return f"{program['speed_up']:.2f}" if "speed_up" in program else ""


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
