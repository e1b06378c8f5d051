"""A program as an ONNX model of standard integer operators, for any runtime that has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from irnn.errors import IrnnError
from irnn.extras import extra
from irnn.places import need_folder
from irnn.program import Program
from irnn.program.sets import ProgramSet

__all__ = ["export", "models", "write"]


def models(program: Program | ProgramSet) -> dict[str, Any]:
    """The ``onnx.ModelProto`` of a program under the name "", or of each part of a set; see ``model.model``."""
    with extra("onnx"):
        from irnn.export.onnx.model import model
    parts = dict(program.items()) if isinstance(program, ProgramSet) else {"": program}
    return {name: model(part) for name, part in parts.items()}


def write(made: dict[str, Any], file: Path) -> list[Path]:
    """Write ``FILE.onnx``, or ``FILE_PART.onnx`` for each part of a set; gives the paths."""
    if file.suffix != ".onnx":
        raise IrnnError(f"out={file}: a model's file ends in .onnx; name it {file}.onnx")
    need_folder(file.absolute().parent, f"out={file}")
    paths = []
    try:
        file.absolute().parent.mkdir(parents=True, exist_ok=True)
        for name, model in made.items():
            path = file.with_stem(f"{file.stem}_{name}") if name else file
            path.write_bytes(model.SerializeToString())
            paths.append(path)
    except OSError as error:
        raise IrnnError(f"out={file}: cannot write the model ({error.strerror or error})") from error
    return paths


def export(program: Program | ProgramSet, file: str | Path) -> list[Path]:
    """Write a program's ONNX model; a set gives one model a part."""
    return write(models(program), Path(file))
