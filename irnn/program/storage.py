"""Programs and sets from disk: what other rooms use of the format that ``document`` writes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from irnn.errors import IrnnError
from irnn.program.document import PROGRAM_FILE, TENSORS_FILE, VERSIONS, canonical, deserialize, program_hash
from irnn.program.ops import OPS
from irnn.program.program import Program
from irnn.program.sets import SET_FILE, SET_VERSION, ProgramSet

__all__ = ["PROGRAM_FILE", "TENSORS_FILE", "load", "program_hash"]


def load(folder: Any) -> Program | ProgramSet:
    """Read a program (or a set) that ``save`` wrote; a truncated, edited or foreign one is refused in one line."""
    folder = Path(folder)
    return _load_set(folder) if (folder / SET_FILE).is_file() else _load_program(folder)


def _load_program(folder: Path) -> Program:
    try:
        text = (folder / PROGRAM_FILE).read_text(encoding="utf-8")
        blob = (folder / TENSORS_FILE).read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        raise IrnnError(f"{folder} holds no readable program ({error}); give a folder that `save` wrote") from error
    try:
        document = json.loads(text)
        version = document["format_version"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise IrnnError(f"{folder / PROGRAM_FILE} is damaged ({error!r}); export the program again") from error
    _need_version(folder, version, VERSIONS, document)
    declared = document.pop("sha256", None)
    if hashlib.sha256(canonical(document)).hexdigest() != declared:
        raise IrnnError(
            f"{folder / PROGRAM_FILE} was edited or truncated: its sha256 differs; export the program again"
        )
    if hashlib.sha256(blob).hexdigest() != document["tensors_sha256"]:
        raise IrnnError(
            f"{folder / TENSORS_FILE} was edited or truncated: its sha256 differs; export the program again"
        )
    try:
        graph = deserialize(document, load_tensors(blob))
    except IrnnError as error:
        raise IrnnError(f"{folder}: {error}") from error
    except (KeyError, TypeError, ValueError, IndexError, SafetensorError) as error:
        raise IrnnError(f"{folder} holds no valid program ({error!r}); export the program again") from error
    for node in graph.walk():
        OPS[node.op]  # an unknown one is refused
    return Program(**vars(graph))


def _load_set(folder: Path) -> ProgramSet:
    """Read what :meth:`ProgramSet.save` wrote."""
    try:
        document = json.loads((folder / SET_FILE).read_text(encoding="utf-8"))
        version, names, metadata = (document[key] for key in ("format_version", "programs", "metadata"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise IrnnError(f"{folder / SET_FILE} is damaged ({error!r}); export the programs again") from error
    _need_version(folder, version, (SET_VERSION,), document)
    return ProgramSet({name: _load_program(folder / name) for name in names}, metadata)


def _need_version(folder: Path, version: Any, known: tuple[int, ...], document: dict[str, Any]) -> None:
    """An :class:`IrnnError` that says which irnn reads another format version: the document names it."""
    if version in known:
        return
    reader = document.get("needs_irnn")
    reader = f"irnn {reader} or later reads it" if isinstance(reader, str) else "a later irnn may read it"
    raise IrnnError(
        f"{folder} has program format {version}, this irnn reads {' and '.join(map(str, known))}; {reader} "
        "(pip install --upgrade irnn), or export the program again"
    )
