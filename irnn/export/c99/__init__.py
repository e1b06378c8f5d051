"""A program as C99: one header and one source each, and ``irnn_runtime.h``, which is the same for all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from irnn.errors import IrnnError
from irnn.export.c99.names import identifier
from irnn.export.c99.source import RUNTIME, Source, source
from irnn.export.c99.writer import OPTIONS
from irnn.places import need_folder
from irnn.program import Program
from irnn.program.sets import ProgramSet

__all__ = ["RUNTIME", "Source", "export", "sources", "write"]


def sources(program: Program | ProgramSet, name: str, limits: Mapping[str, int]) -> list[Source]:
    """The files of a program, or of each program of a set, whose names are then ``NAME_PART``.

    limits: the most steps ("time") and places of a memory ("memory") of a call, where the program keeps something for a
    whole call.  A limit that nothing needs is refused, and so is an operation that has no C form.
    """
    for axis, limit in limits.items():
        if limit < 1:
            raise IrnnError(f"{OPTIONS[axis]}={limit}: a call has at least one; give a number from 1 on")
    parts = {f"{name}_{part}": p for part, p in program.items()} if isinstance(program, ProgramSet) else {name: program}
    made = [source(part, key, limits) for key, part in parts.items()]
    for axis, limit in limits.items():
        if not any(axis in part.limits for part in made):
            raise IrnnError(f"{OPTIONS[axis]}={limit}: nothing is kept for a whole call along {axis}; leave it out")
    return made


def write(made: list[Source], folder: Path) -> list[Path]:
    """Write the files of ``sources`` and the runtime header; gives their paths."""
    need_folder(folder, f"out={folder}")
    runtime = (Path(__file__).parent / "runtime.h").read_text(encoding="utf-8")
    texts = {RUNTIME: runtime}
    for part in made:
        texts |= {f"{part.name}.h": part.header, f"{part.name}.c": part.body}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise IrnnError(f"out={folder}: cannot write the C files ({error.strerror or error})") from error
    return [folder / file for file in texts]


def export(
    program: Program | ProgramSet,
    folder: str | Path,
    *,
    name: str = "irnn",
    max_steps: int | None = None,
    max_memory: int | None = None,
) -> list[Source]:
    """Write a program's C99 files into ``folder``; see :func:`sources`.

    name: begins every file's and every C name.  max_steps, max_memory: the most steps, and places of a memory, of a
    call, for programs that keep something for a whole call.
    """
    limits = {axis: most for axis, most in (("time", max_steps), ("memory", max_memory)) if most is not None}
    made = sources(program, identifier(name), limits)
    write(made, Path(folder))
    return made
