"""Places to write to, tried before the work whose result is to go there."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

from irnn.errors import IrnnError


def need_folder(folder: Path, name: str) -> None:
    """An ``IrnnError`` unless ``folder`` can be made and written to; nothing is made yet.

    A file is tried in it, or in the nearest folder above it that exists.  name: what the user calls the folder, for
    example ``output_dir=outputs``.
    """
    try:
        nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise _unwritable(folder, name, error) from None


def need_file(path: Path, name: str) -> None:
    """Try to write to ``path``, which is left as it is; the folder must be there.  name: as in :func:`need_folder`."""
    if path.is_dir():
        raise IrnnError(f"{name}: {path} is a folder; name a file")
    if not path.absolute().parent.exists():
        raise IrnnError(f"{name}: the folder {path.parent} does not exist; make it, or name another file")
    try:
        before = path.exists()
        with path.open("ab"):
            pass
        if not before:
            path.unlink()
    except OSError as error:
        raise _unwritable(path, name, error) from None


def expanded(path: Path) -> Path:
    """``path`` with the home folder in place of ``~``; an ``IrnnError`` where the user has none."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise IrnnError(f"{path}: there is no home folder; set the environment variable HOME") from None


def _unwritable(path: Path, name: str, error: OSError) -> IrnnError:
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        file = next(place for place in (path, *path.absolute().parents) if place.exists() and not place.is_dir())
        return IrnnError(f"{name}: {file} is a file, not a folder; name another place")
    return IrnnError(f"{name}: cannot write to {path} ({error.strerror or error}); name a place that can be written")
