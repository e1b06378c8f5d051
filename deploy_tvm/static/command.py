"""What ``bench --static`` does: programs from a layer or a folder, their figures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from deploy_tvm.artefact import PROGRAM
from deploy_tvm.bench import FLOAT_FOLDERS, Layer, random_programs
from deploy_tvm.measure import Progress
from deploy_tvm.static.figures import static_figures
from deploy_tvm.targets import Target
from irnn import storage
from irnn.errors import IrnnError
from irnn.program import Program


def bench_static(
    layer: Layer | None, folder: Path | None, floating: str | None, target: Target, steps: int, progress: Progress
) -> dict[str, Any]:
    """The static figures of a layer with random weights, or of the program or artefact in ``folder``."""
    if layer is not None:
        integer, other = random_programs(layer)
        return {**static_figures(integer, other, target, steps, progress), "layer": asdict(layer)}
    assert folder is not None
    if floating is None:
        beside = (folder.resolve().parent / name for name in FLOAT_FOLDERS)
        floating = next((str(path) for path in beside if path.is_dir()), None)
    integer = _program(folder, "integer")
    return static_figures(
        integer, None if floating is None else _program(Path(floating), "float"), target, steps, progress
    )


def _program(folder: Path, kind: str) -> Program:
    program = storage.load(folder if (folder / storage.PROGRAM_FILE).exists() else folder / PROGRAM)
    if program.kind != kind:
        raise IrnnError(f"{folder} holds a program of kind {program.kind!r}; the {kind} one is wanted here")
    return program
