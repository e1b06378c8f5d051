"""What lies in a corpus' folder, and how a message names it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from irnn.errors import IrnnError

# Endings of files that somebody meant as recordings, whether libsndfile reads them or not.
_AUDIO = re.compile(
    r"\.(aac|aif|aifc|aiff|alac|amr|ape|au|caf|flac|m4a|mp3|oga|ogg|opus|rf64|snd|sph|voc|w64|wav|wave|webm|wma)",
    re.IGNORECASE,
)


def entries_under(folder: Path) -> list[Path]:
    """Files and folders at any depth under `folder`, sorted; what cannot be listed is an `IrnnError`.

    Links are followed, each folder is entered once however many links lead to it. Names that begin with a dot are no
    part of a corpus: systems leave such files beside recordings.
    """
    found: list[Path] = []
    entered: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        real = os.path.realpath(place)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        found += [Path(place, name) for name in (*folders, *files) if not name.startswith(".")]
    return sorted(found)


def recordings_of(entries: Iterable[Path]) -> list[Path]:
    """Those whose names end like audio, in any case: `.flac`, `.WAV` ..."""
    return [path for path in entries if _AUDIO.fullmatch(path.suffix)]


def shown(path: Path | str) -> str:
    """`path` in one printable line: control characters and bytes that are no UTF-8 stand as escapes."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _refuse(error: OSError) -> None:
    raise IrnnError(
        f"the folder {shown(error.filename)} cannot be listed ({error.strerror}); mend its permissions or remove it"
    ) from None
