"""Load a text corpus (train, valid, test): a folder of text files, parquet files, transcripts, or the embedded one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from irnn.data.quickstart import quickstart_lines
from irnn.data.speech_config import SpeechConfig
from irnn.data.transcripts import line_stream, transcript_streams
from irnn.data.units import Units
from irnn.data.utterances import LeftOut
from irnn.data.vocabulary import Vocabulary
from irnn.errors import IrnnError
from irnn.extras import extra

SOURCES = ("folder", "parquet", "quickstart", "transcripts")
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class TextConfig:
    """Where the text is and how it is cut into batches.

    source: "folder" (`train/valid/test.txt` or `ptb.train.txt` ... in `dir`), "parquet" (`dir` holds
        `train/`, `validation/` and `test/` with parquet files of one `column` of lines; a local folder or an
        `hf://datasets/...` address of a hub's parquet branch), "quickstart" (the embedded corpus, no `dir`) or
        "transcripts" (what is said in the corpus `speech`; its dev is valid; no `dir`).
    units: a folder of a recognizer (its program, artefact or float stage): lines are cut into its units, not into
        words. Without it, transcripts are cut into the units that a recognizer of `speech` has.
    max_vocabulary: keep so many words, `<eos>` and `<unk>` included; None keeps all.
    batch_size: rows trained in parallel.  steps: tokens per chunk of truncated backpropagation.
    """

    source: str
    dir: str | None = None
    column: str = "sentence"
    units: str | None = None
    max_vocabulary: int | None = None
    speech: SpeechConfig | None = None
    batch_size: int = 20
    steps: int = 35

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise IrnnError(f"data.source={self.source!r} is unknown; allowed: {', '.join(SOURCES)}")
        transcripts = self.source == "transcripts"
        if transcripts and self.speech is None:
            raise IrnnError("data.speech is not set, and data.source=transcripts reads from it; take data=transcripts")
        if self.speech is not None and not transcripts:
            raise IrnnError(f"data.speech is set, and data.source={self.source} does not read it; leave it out")
        if transcripts and self.dir:
            raise IrnnError(
                f"data.dir={self.dir}: transcripts are those of data.speech; for other text in a recognizer's units "
                "take data=text data.dir=FOLDER data.units=RECOGNIZER"
            )
        if self.max_vocabulary is not None and (transcripts or self.units):
            raise IrnnError(
                f"data.max_vocabulary={self.max_vocabulary}: a recognizer's units are all kept; set it to null"
            )
        if self.source in ("folder", "parquet") and not self.dir:
            raise IrnnError(f"data.dir is not set, and data.source={self.source} reads from it; add data.dir=FOLDER")
        for key in ("batch_size", "steps"):
            if getattr(self, key) < 1:
                raise IrnnError(f"data.{key}={getattr(self, key)} must be at least 1")


@dataclass(frozen=True)
class Corpus:
    """Token streams of the three splits, int64 [tokens], one `<eos>` after each line, and the word list.

    `fingerprint` is the sha256 of the words and the streams: equal text gives an equal fingerprint, whichever source
    it came from.
    units: those of the recognizer, whose names the word list then holds with the same ids; None: words.
    left_out: by split, utterances without a transcript that can be used.
    """

    vocabulary: Vocabulary
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    fingerprint: str
    units: Units | None = None
    left_out: dict[str, list[LeftOut]] = field(default_factory=dict)


def load_corpus(config: TextConfig) -> Corpus:
    """Read the three splits and encode them: in the words of the training split, or in a recognizer's units."""
    if config.speech is None and config.units is None:
        lines = _read_lines(config)
        vocabulary = Vocabulary.from_lines(lines["train"], config.max_vocabulary)
        return _corpus(config, vocabulary, {split: vocabulary.encode(lines[split], _name(split)) for split in SPLITS})
    units = None if config.units is None else Units.load(Path(config.units))
    left_out: dict[str, list[LeftOut]] = {}
    if config.speech is not None:
        units, streams, left_out = transcript_streams(config.speech, units)
    else:
        streams = {split: line_stream(lines, units, _name(split)) for split, lines in _read_lines(config).items()}
    return _corpus(config, Vocabulary(units.names), streams, units, left_out)


def _corpus(
    config: TextConfig,
    vocabulary: Vocabulary,
    streams: dict[str, np.ndarray],
    units: Units | None = None,
    left_out: dict[str, list[LeftOut]] | None = None,
) -> Corpus:
    digest = hashlib.sha256((json.dumps(vocabulary.words) if units is None else units.fingerprint).encode())
    for split in SPLITS:
        if not len(streams[split]):
            raise IrnnError(
                f"{_name(split)} of {config.dir or config.source} is empty; every split needs at least one line"
            )
        digest.update(f"{split} {len(streams[split])}".encode())
        digest.update(streams[split].astype("<i8").tobytes())
    return Corpus(vocabulary, **streams, fingerprint=digest.hexdigest(), units=units, left_out=left_out or {})


def _name(split: str) -> str:
    return f"the {split} split"


def _read_lines(config: TextConfig) -> dict[str, list[list[str]]]:
    """The words of every line of the three splits."""
    if config.source == "quickstart":
        return quickstart_lines()
    if config.source == "folder":
        return {split: _read_text_file(_find_split(Path(config.dir), split)) for split in SPLITS}
    return _read_parquet(config.dir, config.column)


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
    with extra("train"):
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
