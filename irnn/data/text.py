"""Load a text corpus (train, valid, test) from a folder of text files, from parquet files, or the embedded one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from irnn.data.quickstart import quickstart_lines
from irnn.data.vocabulary import Vocabulary
from irnn.errors import IrnnError

SOURCES = ("folder", "parquet", "quickstart")
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class TextConfig:
    """Where the text is and how it is cut into batches.

    source: "folder" (`train/valid/test.txt` or `ptb.train.txt` ... in `dir`), "parquet" (`dir` holds
        `train/`, `validation/` and `test/` with parquet files of one `column` of lines; a local folder or an
        `hf://datasets/...` address of a hub's parquet branch) or "quickstart" (the embedded corpus, no `dir`).
    max_vocabulary: keep so many words, `<eos>` and `<unk>` included; None keeps all.
    batch_size: rows trained in parallel.  steps: tokens per chunk of truncated backpropagation.
    """

    source: str
    dir: str | None = None
    column: str = "sentence"
    max_vocabulary: int | None = None
    batch_size: int = 20
    steps: int = 35

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise IrnnError(f"data.source={self.source!r} is unknown; allowed: {', '.join(SOURCES)}")
        if self.source != "quickstart" and not self.dir:
            raise IrnnError(f"data.dir is not set, and data.source={self.source} reads from it; add data.dir=FOLDER")
        for key in ("batch_size", "steps"):
            if getattr(self, key) < 1:
                raise IrnnError(f"data.{key}={getattr(self, key)} must be at least 1")


@dataclass(frozen=True)
class Corpus:
    """Token streams of the three splits, int64 [tokens], one `<eos>` after each line, and the word list.

    `fingerprint` is the sha256 of the words and the streams: equal text gives an equal fingerprint, whichever source
    it came from.
    """

    vocabulary: Vocabulary
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    fingerprint: str


def load_corpus(config: TextConfig) -> Corpus:
    """Read the three splits, build the vocabulary from the training split and encode all three."""
    if config.source == "quickstart":
        lines = quickstart_lines()
    elif config.source == "folder":
        lines = {split: _read_text_file(_find_split(Path(config.dir), split)) for split in SPLITS}
    else:
        lines = _read_parquet(config.dir, config.column)
    vocabulary = Vocabulary.from_lines(lines["train"], config.max_vocabulary)
    streams = {split: vocabulary.encode(lines[split], f"the {split} split") for split in SPLITS}
    digest = hashlib.sha256(json.dumps(vocabulary.words).encode())
    for split in SPLITS:
        if not len(streams[split]):
            raise IrnnError(f"the {split} split of {config.dir} is empty; every split needs at least one line")
        digest.update(f"{split} {len(streams[split])}".encode())
        digest.update(streams[split].astype("<i8").tobytes())
    return Corpus(vocabulary, **streams, fingerprint=digest.hexdigest())


def _find_split(folder: Path, split: str) -> Path:
    if not folder.is_dir():
        raise IrnnError(f"data.dir={folder} is not a folder; give the folder that holds train.txt, valid.txt, test.txt")
    for name in (f"{split}.txt", f"ptb.{split}.txt"):
        if (folder / name).is_file():
            return folder / name
    raise IrnnError(f"data.dir={folder} holds neither {split}.txt nor ptb.{split}.txt; add the file or mend data.dir")


def _read_text_file(path: Path) -> list[list[str]]:
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise IrnnError(
            f"{path} is not UTF-8 (byte {error.object[error.start]:#04x} at position {error.start}); "
            "convert it, for example with iconv -t UTF-8"
        ) from None
    if not text.strip():
        raise IrnnError(f"{path} is empty; it must hold one sentence a line, words separated by blanks")
    # Only "\n" ends a line: str.splitlines would also cut at separators that are part of some corpora's words.
    return [line.split() for line in text.removesuffix("\n").split("\n")]


def _read_parquet(folder: str, column: str) -> dict[str, list[list[str]]]:
    # Imported here: it takes a second, and text files do not need it.
    from datasets import disable_progress_bars, load_dataset
    from datasets.exceptions import DatasetsError

    disable_progress_bars()
    names = {"train": "train", "valid": "validation", "test": "test"}
    files = {split: f"{folder.rstrip('/')}/{name}/*.parquet" for split, name in names.items()}
    try:
        table = load_dataset("parquet", data_files=files)
    except (OSError, ValueError, DatasetsError) as error:
        reason = str(error).splitlines()[0]
        raise IrnnError(f"data.dir={folder}: no parquet files under train/, validation/, test/ ({reason})") from None
    lines: dict[str, list[list[str]]] = {}
    for split in SPLITS:
        if column not in table[split].column_names:
            raise IrnnError(
                f"data.column={column!r} is not in {folder}; columns: {', '.join(table[split].column_names)}"
            )
        sentences: Sequence[str] = table[split][column]
        lines[split] = [sentence.split() for sentence in sentences]
    return lines
