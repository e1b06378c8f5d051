"""Artefacts: folders that hold a compiled library, the program that it was made of, and a manifest with their hashes.

``library-<hash>.so`` holds code and packed weights, ``program/`` the program (``storage``), ``manifest.json`` what
they were built for and with, and the sha256 of every file.  The library is named by its contents because the dynamic
linker knows libraries by their paths: a process that loads a folder, rebuilds and loads it again would get the old one.
Where nothing can link for the target (Android without its NDK) the folder holds ``objects/`` and no library.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tvm

from deploy_tvm.targets import Target, cpu_flags, find, toolchain
from deploy_tvm.targets.compiler import compile_program
from irnn.errors import IrnnError
from irnn.places import need_folder
from irnn.program import Program
from irnn.program.sets import SET_FILE
from irnn.program.storage import PROGRAM_FILE, load, program_hash

FORMAT_VERSION = 1
MANIFEST, PROGRAM, OBJECTS = "manifest.json", "program", "objects"
# What a set of artefacts has in place of a manifest (``artefact_set``).
INDEX = "artefacts.json"


def build(program: Program, folder: Any, target: str | Target = "host") -> Path:
    """Compile ``program`` for ``target`` into ``folder``, which appears whole or not at all.

    An artefact that stands there already is replaced; a folder that is none is left alone.
    """
    folder = Path(folder).absolute()
    chosen = (find(target) if isinstance(target, str) else target).resolve()
    need_place(folder, MANIFEST)
    if not _objects_only(chosen):
        toolchain.find(chosen.mtriple)
    executable = compile_program(program, chosen)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        program.save(scratch / PROGRAM)
        library = _link(executable, scratch, chosen)
        manifest = {
            "format": FORMAT_VERSION,
            "kind": program.kind,
            "target": asdict(chosen),
            "features": sorted(chosen.features()),
            "kernels": chosen.kernels().name,
            "tvm": tvm.__version__,
            "program_hash": program_hash(program),
            "library": library,
            "files": {name: sha256(scratch / name) for name in _files(scratch)},
        }
        (scratch / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        scratch.chmod(0o755)
        replace(scratch, folder)
    except OSError as error:
        raise IrnnError(f"cannot write the artefact {folder}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def need_place(folder: Path, index: str) -> None:
    """An ``IrnnError`` unless ``folder`` can be made, or replaced: it has an ``index``, or is empty."""
    if folder.exists() and not folder.is_dir():
        raise IrnnError(f"{folder} is a file: name a folder for the artefact")
    if folder.exists() and not (folder / index).is_file() and any(folder.iterdir()):
        raise IrnnError(f"{folder} is not empty and holds no {index}: choose another folder, it would be replaced")
    need_folder(folder.parent, f"the artefact {folder}")


def read_manifest(folder: Any, *, run_here: bool = True) -> dict[str, Any]:
    """The manifest of an artefact, after every file's hash and the TVM version have been checked.

    ``run_here``: also whether this machine can execute it.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or not isinstance(manifest["files"], dict):
            raise ValueError("no list of files")
        version, built_with, library = manifest["format"], manifest["tvm"], manifest["library"]
        machine, features = manifest["target"]["mtriple"], manifest["features"]
    except FileNotFoundError:
        raise IrnnError(f"{folder} holds no {MANIFEST}: it is not an artefact; build one first") from None
    except (ValueError, KeyError, OSError) as error:
        raise IrnnError(f"{folder / MANIFEST} cannot be read ({error!r}): build the artefact again") from None
    if version != FORMAT_VERSION:
        raise IrnnError(f"{folder} has artefact format {version}, this version reads {FORMAT_VERSION}: build it again")
    if built_with != tvm.__version__:
        raise IrnnError(f"{folder} was built with TVM {built_with}, here is TVM {tvm.__version__}: build it again")
    found = _files(folder)
    if library is None:
        raise IrnnError(f"{folder} holds object files only: set {toolchain.NDK} to the NDK's clang and build it again")
    if sorted(manifest["files"]) != found or library not in found:
        different = sorted({library, *manifest["files"]} ^ set(found))
        raise IrnnError(f"{folder}: files are missing or do not belong there: {', '.join(different)}; build it again")
    for name, expected in manifest["files"].items():
        if sha256(folder / name) != expected:
            raise IrnnError(f"{folder / name} is damaged or was edited (its sha256 differs): build the artefact again")
    if run_here:
        _check_machine(folder, machine, features)
    return manifest


def is_built(folder: Path) -> bool:
    """Whether ``folder`` holds an artefact or a set of them."""
    return (folder / INDEX).is_file() or not ((folder / SET_FILE).is_file() or (folder / PROGRAM_FILE).is_file())


def holds_set(folder: Path) -> bool:
    """Whether ``folder`` holds a set of programs or of artefacts."""
    return (folder / SET_FILE).is_file() or (folder / INDEX).is_file()


def open_program(folder: Path, kind: str | None = None) -> Program:
    """The program of ``kind`` (None: any) in a folder that holds one, or in an artefact, for whatever target."""
    if holds_set(folder):
        raise IrnnError(
            f"{folder} holds programs that belong together, as a recognizer's do; a single one is wanted here: "
            "name the folder of one of them"
        )
    if not (folder / PROGRAM_FILE).exists():
        read_manifest(folder, run_here=False)
        folder = folder / PROGRAM
    program = load(folder)
    assert isinstance(program, Program)  # no set, as asked above
    if kind not in (program.kind, None):
        raise IrnnError(f"{folder} holds a program of kind {program.kind!r}; the {kind} one is wanted here")
    return program


def _check_machine(folder: Path, made_for: str, features: list[str]) -> None:
    if made_for.split("-")[0] != platform.machine():
        raise IrnnError(
            f"{folder} was built for {made_for}, this machine is {platform.machine()}: run it with  bench {folder} "
            "device=emulated  or on a device, or build it with target=host"
        )
    missing = sorted(set(features) - cpu_flags())
    if missing:
        raise IrnnError(f"{folder} was built for a CPU with {', '.join(missing)}, which this one lacks: build it here")


def _link(executable: tvm.relax.VMExecutable, folder: Path, target: Target) -> str | None:
    """Write the library and return its name; None where there are only object files."""
    path = folder / "library.so"
    if _objects_only(target):
        objects = folder / OBJECTS
        objects.mkdir()
        _export(executable, path, toolchain.collect_objects(objects))
        for item in objects.iterdir():
            toolchain.check_elf(item, target.mtriple)
        return None
    _export(executable, path, toolchain.find(target.mtriple).link_shared)
    toolchain.check_elf(path, target.mtriple)
    name = f"library-{sha256(path)[:12]}.so"
    path.rename(folder / name)
    return name


def _objects_only(target: Target) -> bool:
    return toolchain.is_android(target.mtriple) and not os.environ.get(toolchain.NDK)


def _export(executable: tvm.relax.VMExecutable, path: Path, link: Callable[..., None]) -> None:
    try:
        executable.export_library(str(path), fcompile=link)
    except (RuntimeError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise IrnnError(f"linking {path.name} failed: {first}") from None


def _files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)


def sha256(path: Path) -> str:
    """The file's sha256 in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace(source: Path, folder: Path) -> None:
    """Put ``source`` in the place of ``folder``; the old one goes only when the new one stands."""
    if not folder.exists():
        os.rename(source, folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent)) / "artefact"
    os.rename(folder, old)
    os.rename(source, folder)
    shutil.rmtree(old.parent, ignore_errors=True)
