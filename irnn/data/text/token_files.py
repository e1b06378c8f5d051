"""Text larger than memory: token streams on disk, written once a block at a time and read through a memory map.

Of all ways to stream text this one keeps random access, which a language model's parallel rows, an exact resume and the
parts of several processes need; it takes NumPy alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from filelock import FileLock

from irnn.data.text.text_files import read_line_blocks
from irnn.data.text.vocabulary import VOCABULARY_FILE, Vocabulary
from irnn.errors import IrnnError
from irnn.places import expanded

# Part of every name: a change of the files' form must not find what an older version has left.
_FORMAT = 1
_INDEX = "index.json"
_DTYPE = "<i4"
# Tokens that are hashed at once.
_BLOCK = 1 << 22

# (the vocabulary's words, streams by split) -> hash of both
Fingerprint = Callable[[Vocabulary, Mapping[str, np.ndarray]], str]


def mapped_streams(
    texts: Mapping[str, Path], limit: int | None, folder: Path, fingerprint: Fingerprint
) -> tuple[Vocabulary, dict[str, np.ndarray], str]:
    """(vocabulary, int32 stream of each split as a read-only memory map, fingerprint) of text files by split.

    The vocabulary is that of "train".  Files that `folder` holds already, from texts of the same names, sizes and times
    of change, are read again; a run that is killed while it writes leaves nothing that a later one would take for them.
    """
    place = expanded(folder) / f"tokens-{_identity(texts, limit)}"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_name(f".{place.name}.lock")):
            if not place.is_dir():
                _write(texts, limit, place, fingerprint)
    except OSError as error:
        raise IrnnError(f"the token files {place} cannot be written ({error}); set `token_files`") from None
    return _open(place, texts)


def _identity(texts: Mapping[str, Path], limit: int | None) -> str:
    states = {split: (str(path.absolute()), path.stat()) for split, path in texts.items()}
    files = [(split, name, state.st_size, state.st_mtime_ns) for split, (name, state) in states.items()]
    return hashlib.sha256(json.dumps([_FORMAT, limit, files]).encode()).hexdigest()[:16]


def _write(texts: Mapping[str, Path], limit: int | None, place: Path, fingerprint: Fingerprint) -> None:
    unfinished = place.with_name(f".{place.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)  # left by a run that was killed; the lock says nobody else is here
    unfinished.mkdir()
    try:
        lines = (line.split() for block in read_line_blocks(texts["train"]) for line in block)
        vocabulary = Vocabulary.from_lines(lines, limit)
        vocabulary.save(unfinished / VOCABULARY_FILE)
        for split, path in texts.items():
            if not _write_stream(_encoded(vocabulary, path, split), unfinished / f"{split}.npy"):
                raise IrnnError(f"{path} is empty; it must hold one sentence a line, words separated by blanks")
        found = fingerprint(vocabulary, {split: _map(unfinished / f"{split}.npy") for split in texts})
        (unfinished / _INDEX).write_text(json.dumps({"fingerprint": found}) + "\n", encoding="utf-8")
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    os.rename(unfinished, place)


def _encoded(vocabulary: Vocabulary, path: Path, split: str) -> Iterator[np.ndarray]:
    first = 1
    for block in read_line_blocks(path):
        yield vocabulary.encode((line.split() for line in block), f"the {split} split", first)
        first += len(block)


def _write_stream(parts: Iterable[np.ndarray], path: Path) -> int:
    """The number of tokens."""

    def write_header(count: int) -> None:
        # NumPy leaves room for the length to grow, so the header can be written again when it is known.
        np.lib.format.write_array_header_1_0(file, {"descr": _DTYPE, "fortran_order": False, "shape": (count,)})

    with path.open("wb") as file:
        write_header(0)
        count = 0
        for part in parts:
            file.write(part.astype(_DTYPE).tobytes())
            count += len(part)
        file.seek(0)
        write_header(count)
        file.flush()
        os.fsync(file.fileno())
    return count


def _map(path: Path) -> np.ndarray:
    stream: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    if stream.ndim != 1 or stream.dtype != np.dtype(_DTYPE):
        raise ValueError
    return stream


def _open(place: Path, splits: Iterable[str]) -> tuple[Vocabulary, dict[str, np.ndarray], str]:
    try:
        found = json.loads((place / _INDEX).read_text(encoding="utf-8"))["fingerprint"]
        streams = {split: _map(place / f"{split}.npy") for split in splits}
    except (OSError, ValueError, KeyError, TypeError):
        raise IrnnError(f"the token files {place} are damaged; delete that folder to write them again") from None
    return Vocabulary.load(place / VOCABULARY_FILE), streams, found


def blocks_of(stream: np.ndarray) -> Iterator[np.ndarray]:
    """A stream piece by piece, so that a mapped one is never in memory as a whole."""
    return (stream[start : start + _BLOCK] for start in range(0, len(stream), _BLOCK))
