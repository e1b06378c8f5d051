"""What an exported program takes of a device: constants, scratch, state, and the code that a compiler makes of it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from irnn.errors import IrnnError
from irnn.export.c99 import Source, write

FLAGS = ("-std=c99", "-Os")


def code_bytes(made: list[Source], compiler: str) -> dict[str, int]:
    """Bytes of machine code of each program, without its constants; compiler: a command, perhaps with flags."""
    command = shlex.split(compiler)
    if not command or shutil.which(command[0]) is None:
        raise IrnnError(f"compiler={compiler}: there is no {command[0] if command else 'command'} on this machine")
    tool = re.sub(r"(gcc|cc|clang)(-[\d.]+)?$", "size", Path(command[0]).name)
    if shutil.which(tool) is None:
        tool = "size"
    found = {}
    with tempfile.TemporaryDirectory(prefix="irnn-c99-") as name:
        folder = Path(name)
        write(made, folder)
        for part in made:
            unit = folder / f"{part.name}.o"
            _run([*command[:1], *FLAGS, *command[1:], "-c", str(unit.with_suffix(".c")), "-o", str(unit)])
            lines = _run([tool, "-A", str(unit)]).splitlines()
            sections = [line.split() for line in lines if line.startswith(".text")]
            found[part.name] = sum(int(size) for _, size, *_ in sections)
    return found


def record(made: list[Source], code: dict[str, int], compiler: str | None) -> dict[str, Any]:
    """The table as JSON values, sizes in bytes."""
    return {
        "compiler": compiler and " ".join([*shlex.split(compiler)[:1], *FLAGS, *shlex.split(compiler)[1:]]),
        "programs": [
            {
                "name": part.name,
                "files": [f"{part.name}.h", f"{part.name}.c"],
                "constants": part.constants,
                "scratch": part.scratch,
                "state": part.state,
                "code": code.get(part.name),
                "limits": part.limits,
            }
            for part in made
        ],
    }


def table(found: dict[str, Any]) -> str:
    """The record as a table for a terminal."""
    code = f"code ({found['compiler']})" if found["compiler"] else "code"
    rows = [["program", "constants", "scratch", "state", code]]
    for part in found["programs"]:
        sizes = [part[key] for key in ("constants", "scratch", "state", "code")]
        rows.append([part["name"], *("-" if size is None else f"{size:,}" for size in sizes)])
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise IrnnError(f"compiler: cannot run {command[0]} ({error.strerror or error})") from error
    if done.returncode:
        first = (done.stderr.strip().splitlines() or [f"code {done.returncode}"])[0]
        raise IrnnError(f"compiler: {' '.join(command[:3])} failed: {first}")
    return done.stdout
