"""What a finished stage leaves behind: a JSON manifest, written last and in one step, with the sha256 of every file."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from irnn.commit import commit
from irnn.errors import IrnnError

FORMAT = 1
FILE = "manifest.json"
WEIGHTS_FILE = "model.safetensors"
_PACKAGES = ("irnn", "torch", "pytorch-lightning", "numpy", "apache-tvm")


def digest_of(content: Any) -> str:
    """Short sha256 of anything that JSON can hold: the identity of a stage or of a run."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that `path` holds either the old or the new content, whatever happens in between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """`write_atomically` for readable JSON."""
    write_atomically(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def write_manifest(folder: Path, content: dict[str, Any], files: list[str]) -> dict[str, Any]:
    """Seal a stage's folder: the manifest names the sha256 of each of `files` and says `done`."""
    manifest = {
        "format": FORMAT,
        **content,
        "commit": commit(),
        "versions": versions(),
        "files": {name: _sha256(folder / name) for name in files},
        "done": True,
    }
    write_json(folder / FILE, manifest)
    return manifest


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished stage, or None where the stage has not finished.

    A manifest that cannot be read, or a file that is not the one that was sealed, is an `IrnnError`: the folder was
    damaged or edited afterwards.  Weights may be gone: they are most of a folder's bytes, and nothing needs them once
    the stages that start from them are done; where one does, `checkpoints.load_weights` says so.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        files, done, written = manifest["files"], manifest["done"], manifest["format"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise IrnnError(f"{path} is damaged; delete the folder {folder} to run the stage again") from None
    if written != FORMAT or done is not True:
        raise IrnnError(f"{path} is of format {written}, this version writes {FORMAT}; delete the folder {folder}")
    for name, expected in files.items():
        if name == WEIGHTS_FILE and not (folder / name).exists():
            continue
        if not (folder / name).is_file() or _sha256(folder / name) != expected:
            raise IrnnError(
                f"{folder / name} is missing or not the file that the stage wrote (truncated or edited); "
                f"delete the folder {folder} to run the stage again"
            )
    return manifest


def files_below(folder: Path, *names: str) -> list[str]:
    """Paths of all files under `folder/name` of each name, relative to `folder`, sorted."""
    return sorted(str(p.relative_to(folder)) for name in names for p in (folder / name).rglob("*") if p.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide on the result."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
