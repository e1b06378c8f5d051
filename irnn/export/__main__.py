"""Programs in other languages: ``python -m irnn.export c99|onnx PROGRAM out=PLACE [KEY=VALUE ...] [--json]``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from irnn.errors import IrnnError
from irnn.program.storage import load

USAGE = """python -m irnn.export c99 PROGRAM out=FOLDER [name=NAME] [max_steps=N] [max_memory=N] [compiler=COMMAND]
       python -m irnn.export onnx PROGRAM out=FILE.onnx"""


def main(arguments: list[str]) -> int:
    """Export a program, print what was written and what it takes."""
    parser = argparse.ArgumentParser(prog="python -m irnn.export", usage=USAGE, description=__doc__)
    parser.add_argument("format", choices=tuple(FORMATS))
    parser.add_argument("program", metavar="PROGRAM", help="a folder that `save` wrote: a program or a set of them")
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--json", action="store_true", help="print the sizes as JSON")
    parsed = parser.parse_intermixed_args(arguments)
    try:
        FORMATS[parsed.format](parsed.program, parsed.keys, parsed.json)
    except IrnnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _keys(given: list[str], allowed: tuple[str, ...]) -> dict[str, str]:
    """``KEY=VALUE`` arguments by key; ``out`` has to be among them."""
    found: dict[str, str] = {}
    for argument in given:
        key, equals, value = argument.partition("=")
        if not equals or key not in allowed or not value:
            raise IrnnError(f"{argument}: no such argument; allowed are {', '.join(f'{name}=...' for name in allowed)}")
        if key in found:
            raise IrnnError(f"{argument}: {key} is given twice; leave one out")
        found[key] = value
    if "out" not in found:
        raise IrnnError("`out` is missing: say where to write to, for example out=exported")
    return found


def _c99(program: str, given: list[str], as_json: bool) -> None:
    from irnn.export.c99 import RUNTIME, footprint, sources, write
    from irnn.export.c99.names import identifier

    keys = _keys(given, ("out", "name", "max_steps", "max_memory", "compiler"))
    name = identifier(keys.get("name", Path(program).resolve().name))
    options = (("time", "max_steps"), ("memory", "max_memory"))
    limits = {axis: _whole(key, keys[key]) for axis, key in options if key in keys}
    folder = Path(keys["out"])
    made = sources(load(program), name, limits)
    compiler = keys.get("compiler")
    code = footprint.code_bytes(made, compiler) if compiler else {}
    write(made, folder)
    found = footprint.record(made, code, compiler)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    print(f"{folder}: {', '.join(file for part in made for file in (f'{part.name}.h', f'{part.name}.c'))}, {RUNTIME}")
    print("bytes")
    print(footprint.table(found))


def _onnx(program: str, given: list[str], as_json: bool) -> None:
    from irnn.export.onnx import models, write

    keys = _keys(given, ("out",))
    made = models(load(program))
    sizes = {}
    for path, model in zip(write(made, Path(keys["out"])), made.values(), strict=True):
        sizes[str(path)] = {"bytes": path.stat().st_size, "nodes": len(model.graph.node)}
    if as_json:
        print(json.dumps(sizes, indent=1))
        return
    for name, size in sizes.items():
        print(f"{name}: {size['bytes']:,} bytes, {size['nodes']} nodes")


def _whole(key: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise IrnnError(f"{key}={text} is no whole number; give one from 1 on, for example {key}=1000") from None


FORMATS: dict[str, Callable[[str, list[str], bool], None]] = {"c99": _c99, "onnx": _onnx}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
