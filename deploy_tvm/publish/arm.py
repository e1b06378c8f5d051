"""``python -m deploy_tvm.publish PROGRAM --peers-python PYTHON --layer lstm,gru --recognizer PROGRAMS``: figures
without a board.

The program on every emulated board, integer by integer, under ``targets``; a recognizer on the boards that take one,
under ``recognizer``; and under ``layers`` by cell the static figures of a layer 650 -> 650, beside those of other
runtimes: all in ``docs/results/arm.json``.  What is not given keeps its figures; the tables of ``docs/devices.md`` are
written anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from deploy_tvm import targets
from deploy_tvm.bench.measure import FLOAT, INTEGER, Progress
from deploy_tvm.peers.peers import parse_against
from deploy_tvm.remote.bench import bench_device
from deploy_tvm.remote.device import from_config
from deploy_tvm.remote.workload import Lengths
from deploy_tvm.static.figures import static_figures
from irnn.errors import IrnnError
from irnn.random_programs import Layer, layer_programs

PAGE = Path(__file__).parents[2] / "docs" / "devices.md"
RESULTS = PAGE.parent / "results" / "arm.json"
BOARDS = ("aarch64", "cortex_a53", "cortex_a72", "cortex_a76", "armv7a")
TOKENS, FRAMES, UNITS = 2000, 1000, 100
LAYERS = ("lstm", "gru")  # the cells that have tables
LAYER = Layer(input=650, hidden=650)
STEPS = 35
# The first target's 8-bit figures stand beside the other runtimes'.
MAIN = "cortex_a76"
I8MM = "cortex_a76 with i8mm"
CORES = (MAIN, I8MM, "cortex_a53", "armv7a")
BITS = (8, 4, 2)
AGAINST = "onnxruntime,litert"
_TABLE = re.compile(r"(<!-- arm:(\w+) -->\n).*?(<!-- /arm -->)", re.DOTALL)


def measure_layer(cell: str, peers_python: str | None, progress: Progress) -> dict[str, Any]:
    """What stands under ``layers``: the main static figures, and under ``static`` those of all cores."""

    def figures(name: str, bits: int) -> dict[str, Any]:
        return _static(cell, name, bits, peers_python, lambda text: progress(f"{cell}, {name}, W{bits}: {text}"))

    main = figures(MAIN, 8)
    if main["absent"]:
        raise IrnnError("; ".join(f"{name}: {reason}" for name, reason in main["absent"].items()))
    rest = [(name, bits) for bits in BITS for name in CORES if (name, bits) != (MAIN, 8)]
    return {**main, "static": {f"{name}, W{bits}": figures(name, bits) for name, bits in rest}}


def _on_boards(folder: Path, names: tuple[str, ...], lengths: Lengths, progress: Progress) -> dict[str, Any]:
    """What ``bench_device`` found by target, with the board's name and the length of what was compared."""
    boards = {}
    for name in names:
        target = targets.find(name)
        device = from_config({"kind": "emulated", "number": 2, "repeat": 5, "warmup": 1}, target.mcpu)
        result = bench_device(folder, None, target, device, lengths, progress)
        ((_, entry),) = result["targets"].items()
        boards[name] = {**entry, "board": result["device"]["name"], **lengths.given}
    return boards


def _static(cell: str, name: str, bits: int, peers_python: str | None, progress: Progress) -> dict[str, Any]:
    target = targets.find(MAIN if name == I8MM else name)
    if name == I8MM:
        target = replace(target, name=I8MM, mattr=(*target.mattr, "+i8mm"))
    against = parse_against(AGAINST) if (name, bits) == (MAIN, 8) else ()
    layer = replace(LAYER, weight_bits=bits, cell=cell)
    figures = static_figures(*layer_programs(layer), target, STEPS, against, peers_python, progress)
    return {**figures, "layer": asdict(layer)}


def with_tables(text: str, results: dict[str, Any]) -> str:
    """The page ``text`` with the content of each pair of markers written anew from ``arm.json``."""
    return _TABLE.sub(lambda match: match[1] + TABLES[match[2]](results) + match[3], text)


def _boards(results: dict[str, Any]) -> str:
    rows = [
        (name, entry["board"], f"{entry['mismatches']['count']} of {entry['mismatches']['compared']:,}",
         f"{entry['tokens']:,}", f"{entry['bytes'] / 1e6:.2f} MB")
        for name, entry in results["targets"].items()
    ]  # fmt: skip
    return _table(("target", "ran on", "integers that differ", "tokens", "library"), rows)


def _recognizer(results: dict[str, Any]) -> str:
    rows = []
    for name, entry in results["recognizer"].items():
        parts = [entry[part] for part in ("encoder", "decoder")]
        differ = (f"{part['mismatches']['count']} of {part['mismatches']['compared']:,}" for part in parts)
        sizes = (f"{part['bytes'] / 1e6:.2f} MB" for part in parts)
        rows.append((name, entry["board"], *differ, f"{entry['frames']:,} frames, {entry['units']} units", *sizes))
    heads = ("target", "ran on", "integers that differ: encoder", "decoder", "utterance", "library: encoder", "decoder")
    return _table(heads, rows)


def _instructions(cell: str, arm: dict[str, Any]) -> str:
    """Rows: our builds by core, then the other runtimes, with our share of their instructions."""
    results = arm["layers"][cell]
    single = results["instructions_per_step"]
    rows = []
    for name in CORES:
        by_bits = [_figures(results, name, bits) for bits in BITS]
        for kind in (INTEGER, FLOAT):
            counts = [
                found["instructions_per_step"][kind] for result in by_bits for found in (result, result["sequence"])
            ]
            cells = [_thousands(value) for value in (counts if kind == INTEGER else counts[:2])]
            rows.append((f"{kind}, {name}", *cells, *[""] * (len(counts) - len(cells)), _share(by_bits[0], counts[0])))
    main = _figures(results, MAIN, 8)
    for name, value in single.items():
        if name not in (INTEGER, FLOAT):
            rows.append((name, _thousands(value), *[""] * (2 * len(BITS) - 1), _share(main, value)))
    heads = (head for bits in BITS for head in (f"W{bits}", f"{STEPS} steps a call"))
    return _table(("thousands of instructions a step", *heads, "integer W8 / this"), rows)


def _cycles(cell: str, arm: dict[str, Any]) -> str:
    results = arm["layers"][cell]
    four = _figures(results, MAIN, 4)
    rows = []
    for core, cycles in results["mca_cycles_per_step"].items():
        memory, memory_4 = results["memory"][core], four["memory"][core]
        modelled = (cycles, four["mca_cycles_per_step"][core], results["mca_cycles_per_step_float"][core])
        read = (memory["us_per_step"][INTEGER], memory_4["us_per_step"][INTEGER], memory["us_per_step"][FLOAT])
        cells = [*map(_thousands, modelled), *(f"{value:.0f}" for value in read)]
        rows.append((core, *cells, f"{memory['bytes_per_second'] / 1e9:.1f} GB/s: {memory['board']}"))
    heads = ("core", "thousands of cycles: W8", "W4", "float", "us to read the weights: W8", "W4", "float")
    return _table((*heads, "at the peak bandwidth of"), rows)


def _figures(results: dict[str, Any], name: str, bits: int) -> dict[str, Any]:
    return results if (name, bits) == (MAIN, 8) else results["static"][f"{name}, W{bits}"]


def _thousands(value: float) -> str:
    return f"{value / 1000:,.0f}"


def _share(ours: dict[str, Any], value: float) -> str:
    share = ours["instructions_per_step"][INTEGER] / value
    return "" if share == 1 else f"{share:.2f}"


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows), ""])


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "boards": _boards,
    "recognizer": _recognizer,
    **{
        f"{cell}_{name}": partial(table, cell)
        for cell in LAYERS
        for name, table in (("instructions", _instructions), ("cycles", _cycles))
    },
}


def cells(text: str) -> list[str]:
    """The cells that ``--layer`` names."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    for cell in found:
        if cell not in LAYERS:
            raise IrnnError(f"--layer {cell}: no such table; allowed are {', '.join(LAYERS)}")
    return found


def publish(
    program: Path | None, chosen: list[str], recognizer: Path | None, peers_python: str | None, progress: Progress
) -> Path:
    """Measure what is given, keep the figures of what is not, and write the page's tables anew; the results' file."""
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    if program is not None:
        results["targets"] = _on_boards(program, BOARDS, Lengths(tokens=TOKENS), progress)
    for cell in chosen:
        results.setdefault("layers", {})[cell] = measure_layer(cell, peers_python, progress)
    if recognizer is not None:
        lengths = Lengths(frames=FRAMES, units=UNITS)
        results["recognizer"] = _on_boards(recognizer, BOARDS, lengths, progress)
    if program is not None or recognizer is not None or chosen:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
    return RESULTS
