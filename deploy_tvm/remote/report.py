"""What a device did, as a table for people."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

# Of parts together, with the digits that are shown.
FIGURES = {"tokens_per_second": 0, "steps_per_second": 0, "sequences_per_second": 0, "real_time_factor": 5}
EMULATED = "emulated: these times are the emulator's and say nothing about a device"


def report(result: dict[str, Any]) -> RenderableType:
    """The table of what ``bench_device`` or ``bench_devices`` returned."""
    if "boards" in result:
        return _fleet(result)
    ((target, entry),) = result["targets"].items()
    device, emulated = result["device"], result["device"]["emulated"]
    timed = result["timed"]
    title = f"{target} on {device['name']}, {_timed(result)}" + (f"\n{EMULATED}" if emulated else "")
    table = Table(title=title, title_justify="left")
    table.add_column("program")
    unit = "emulated us" if emulated else "us"
    per = f"per {timed}" if isinstance(timed, str) else "a call"
    figure = next((name for name in FIGURES if name in entry), "")
    for heading in (f"{unit} {per}", "p95", figure.replace("_", " "), "library", "peak memory", "float / this"):
        table.add_column(heading, justify="right")
    for name, program in _programs(entry):
        for row in _rows(name, program, timed, figure):
            table.add_row(*row)
    count, compared = entry["mismatches"]["count"], entry["mismatches"]["compared"]
    lines = [f"{count} mismatches with the interpreter in {compared} integers ({_compared(result)})"]
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


def _fleet(result: dict[str, Any]) -> RenderableType:
    """A row a board and a row a figure of all."""
    device, count = result["device"], result["mismatches"]
    title = f"{result['target']} on {device['count']} devices of {device['name']}, {_timed(result)}"
    boards = Table(title=title + (f"\n{EMULATED}" if device["emulated"] else ""), title_justify="left")
    names = [name for name in result["spread"] if name.rpartition("/")[2].startswith("us_per")]
    for heading in ("board", *names, "mismatches"):
        boards.add_column(heading, justify="left" if heading == "board" else "right")
    for address, board in result["boards"].items():
        cpu = f" ({board['described']['cpu']})" if board["described"] else ""
        found = board["mismatches"]
        figures = (f"{_figure(board, name):.1f}" for name in names)
        boards.add_row(address + cpu, *figures, f"{found['count']} of {found['compared']}")
    spread = Table(title="between the boards", title_justify="left")
    for heading in ("figure", "least", "median", "most", "spread"):
        spread.add_column(heading, justify="left" if heading == "figure" else "right")
    for name, found in result["spread"].items():
        values = (f"{found[key]:.5g}" for key in ("min", "median", "max"))
        spread.add_row(name, *values, f"{found['spread']:.1%}")
    compared = f"{count['compared']} integers ({_compared(result)} each)"
    line = f"{count['count']} mismatches with the interpreter in {compared}"
    return Group(boards, spread, Text(line))


def _figure(board: dict[str, Any], name: str) -> float:
    """A figure of the spread ("part/name") in what it came from."""
    value: Any = board
    for key in name.split("/"):
        value = value[key]
    return float(value)


def _rows(name: str, program: dict[str, Any], timed: str | dict[str, str], figure: str) -> list[list[str]]:
    """A row of a program that stands alone; of several one each, and one for all of them."""
    value = _number(program[figure], FIGURES[figure]) if figure else ""
    if isinstance(timed, str):
        return [[name, *_times(program, timed), value, *_sizes(program), _ratio(program)]]
    rows = [
        [f"{name} {part}", *_times(program[part], unit), "", *_sizes(program[part]), ""]
        for part, unit in timed.items()
    ]  # fmt: skip
    return [*rows, [f"{name}, all", "", "", value, _size(program), "", _ratio(program)]]


def _timed(result: dict[str, Any]) -> str:
    """What was timed, for the title."""
    if "seconds_of_speech" in result:
        return f"{result['seconds_of_speech']:g} s of speech, {result['units']} units"
    timed = result["timed"]
    return f"one {timed} a call" if isinstance(timed, str) else f"{len(timed)} programs"


def _compared(result: dict[str, Any]) -> str:
    """The golden sequence."""
    return ", ".join(f"{result[name]} {name}" for name in ("tokens", "steps", "frames", "units") if name in result)


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
