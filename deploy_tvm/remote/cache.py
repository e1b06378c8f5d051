"""Things that are made once for each user and machine: ``$XDG_CACHE_HOME/irnn`` or ``~/.cache/irnn``."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from irnn.errors import IrnnError
from irnn.places import expanded


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """The folder ``name``, filled by ``make(folder)`` if it is not there; it appears whole or not at all.

    Two processes that want the same folder make it once: the second one waits.
    """
    base = expanded(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "irnn"
    folder = base / name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            if not folder.is_dir():
                scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
                try:
                    make(scratch)
                    scratch.chmod(0o755)
                    scratch.rename(folder)
                finally:
                    shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise IrnnError(
            f"cannot prepare {folder}: {error.strerror or error}; name another place for the cache in the "
            "environment variable XDG_CACHE_HOME"
        ) from None
    return folder
