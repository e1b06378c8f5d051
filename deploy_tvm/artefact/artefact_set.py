"""Artefacts that belong together: a folder with one artefact a part, and an index that names them.

``artefacts.json`` holds the names, the set's metadata and each part's program hash; without it the folder is no set.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deploy_tvm.artefact import artefact, runner
from deploy_tvm.artefact.artefact import FORMAT_VERSION, INDEX, MANIFEST
from deploy_tvm.artefact.runner import Runner
from deploy_tvm.targets import Target, find
from irnn.data.speech.units import Units
from irnn.errors import IrnnError
from irnn.program import Program, storage
from irnn.program.sets import ProgramSet
from irnn.program.storage import program_hash


def is_set(folder: Path) -> bool:
    """Whether ``folder`` holds a set of artefacts."""
    return (folder / INDEX).is_file()


def build(programs: ProgramSet, folder: Any, target: str | Target = "host", units: Units | None = None) -> Path:
    """Compile each program for ``target`` into ``folder/<name>``; the folder appears whole or not at all.

    units: a recognizer's, saved beside the index.  A set that stands there already is replaced; a folder that is none
    is left alone.
    """
    folder = Path(folder).absolute()
    chosen = (find(target) if isinstance(target, str) else target).resolve()
    artefact.need_place(folder, INDEX)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, program in programs.items():
            artefact.build(program, scratch / name, chosen)
        document = {
            "format": FORMAT_VERSION,
            "programs": {name: program_hash(program) for name, program in programs.items()},
            "metadata": programs.metadata,
        }
        (scratch / INDEX).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        if units is not None:
            units.save(scratch)
        scratch.chmod(0o755)
        artefact.replace(scratch, folder)
    except OSError as error:
        raise IrnnError(f"cannot write the artefacts {folder}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def load(folder: Any) -> RunnerSet:
    """The runners of a set whose files are what they were when it was built."""
    folder = Path(folder)
    hashes, metadata = _read_index(folder)
    runners = {name: runner.load(folder / name) for name in hashes}
    _check_hashes(folder, hashes, {name: part.program_hash for name, part in runners.items()})
    return RunnerSet(runners, metadata)


def open_programs(folder: Path, kind: str) -> ProgramSet:
    """The programs of ``kind`` in a folder that holds a set of them, or of artefacts, for whatever target."""
    if is_set(folder):
        hashes, metadata = _read_index(folder)
        programs = ProgramSet({name: artefact.open_program(folder / name, kind) for name in hashes}, metadata)
        _check_hashes(folder, hashes, {name: program_hash(program) for name, program in programs.items()})
        return programs
    loaded = storage.load(folder)
    if not isinstance(loaded, ProgramSet):
        raise IrnnError(f"{folder} holds a single program; a set of them is wanted here")
    for program in loaded.values():
        if program.kind != kind:
            raise IrnnError(f"{folder} holds programs of kind {program.kind!r}; {kind} ones are wanted here")
    return loaded


def open_parts(folder: Path, kind: str = "integer") -> dict[str, Program]:
    """The programs of ``kind`` in a folder of programs or artefacts, by part; a program that stands alone is ""."""
    if artefact.holds_set(folder):
        return dict(open_programs(folder, kind))
    return {"": artefact.open_program(folder, kind)}


def _read_index(folder: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """(program hashes by name, metadata)."""
    try:
        document = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        version, hashes, metadata = document["format"], dict(document["programs"]), document["metadata"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise IrnnError(f"{folder / INDEX} cannot be read ({error!r}): build the artefacts again") from None
    if version != FORMAT_VERSION:
        raise IrnnError(f"{folder} has artefact format {version}, this version reads {FORMAT_VERSION}: build it again")
    return hashes, metadata


def _check_hashes(folder: Path, expected: dict[str, str], found: dict[str, str]) -> None:
    for name, program in found.items():
        if program != expected[name]:
            raise IrnnError(f"{folder / name / MANIFEST} belongs to another program: build the artefacts again")


class RunnerSet(Mapping[str, Runner]):
    """The runners of compiled programs by name, and the programs (``programs``) that they were made of."""

    def __init__(self, runners: dict[str, Runner], metadata: dict[str, Any]) -> None:
        self._runners = runners
        self.programs = ProgramSet({name: part.program for name, part in runners.items()}, metadata)

    def __getitem__(self, name: str) -> Runner:
        return self._runners[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._runners)

    def __len__(self) -> int:
        return len(self._runners)

    @property
    def metadata(self) -> dict[str, Any]:
        """The set's free JSON."""
        return self.programs.metadata
