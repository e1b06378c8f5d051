"""Load a text corpus (train, valid, test): a folder of text files, parquet files, transcripts, or the embedded one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from irnn.data.left_out import LeftOut
from irnn.data.speech.speech_config import SpeechConfig
from irnn.data.speech.transcripts import line_stream, transcript_streams
from irnn.data.speech.units import Units
from irnn.data.text.parquet import open_parquet, text_column
from irnn.data.text.quickstart import quickstart_lines
from irnn.data.text.text_files import read_lines
from irnn.data.text.token_files import blocks_of, mapped_streams
from irnn.data.text.vocabulary import Vocabulary
from irnn.errors import IrnnError

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
    characters: lines are cut into the characters of their words, with one blank between two words.
    max_vocabulary: keep so many words, `<eos>` and `<unk>` included; None keeps all.
    token_files: folder in which the token streams are kept, once written, and from which they are mapped, for text
        larger than memory (source "folder", words); None keeps them in memory.
    batch_size: rows trained in parallel.  steps: tokens per chunk of truncated backpropagation.
    """

    source: str
    dir: str | None = None
    column: str = "sentence"
    units: str | None = None
    characters: bool = False
    max_vocabulary: int | None = None
    token_files: str | None = None
    speech: SpeechConfig | None = None
    batch_size: int = 20
    steps: int = 35

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise IrnnError(f"source={self.source!r} is unknown; allowed: {', '.join(SOURCES)}")
        transcripts = self.source == "transcripts"
        if transcripts and self.speech is None:
            raise IrnnError("`speech` is not set, and source=transcripts reads from it: give speech=CORPUS")
        if self.speech is not None and not transcripts:
            raise IrnnError(f"`speech` is set, and source={self.source} does not read it; leave it out")
        if transcripts and self.dir:
            raise IrnnError(
                f"dir={self.dir}: transcripts are those of `speech`; for other text in a recognizer's units "
                "take source=folder dir=FOLDER units=RECOGNIZER"
            )
        if self.max_vocabulary is not None and (transcripts or self.units):
            raise IrnnError(f"max_vocabulary={self.max_vocabulary}: a recognizer's units are all kept; set it to null")
        if self.characters and (transcripts or self.units):
            raise IrnnError("characters=true: a recognizer's units say how its lines are cut; set it to false")
        if self.token_files is not None and (self.source != "folder" or self.units or self.characters):
            raise IrnnError(f"token_files={self.token_files}: only source=folder in words writes them; set it to null")
        if self.source in ("folder", "parquet") and not self.dir:
            raise IrnnError(f"`dir` is not set, and source={self.source} reads from it; add dir=FOLDER")
        for key in ("batch_size", "steps"):
            if getattr(self, key) < 1:
                raise IrnnError(f"{key}={getattr(self, key)} must be at least 1")


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
    if config.token_files is not None:
        assert config.dir is not None  # asked for by the configuration
        texts = {split: _find_split(Path(config.dir), split) for split in SPLITS}
        vocabulary, streams, fingerprint = mapped_streams(
            texts, config.max_vocabulary, Path(config.token_files), partial(_fingerprint, config)
        )
        return Corpus(vocabulary, streams["train"], streams["valid"], streams["test"], fingerprint)
    if config.speech is None and config.units is None:
        lines = _read_lines(config)
        vocabulary = Vocabulary.from_lines(lines["train"], config.max_vocabulary)
        return _corpus(config, vocabulary, {split: vocabulary.encode(lines[split], _name(split)) for split in SPLITS})
    given = None if config.units is None else Units.load(Path(config.units))
    if config.speech is not None:
        units, streams, left_out = transcript_streams(config.speech, given)
        return _corpus(config, Vocabulary(units.names), streams, units, left_out)
    assert given is not None  # one of the two is there
    streams = {split: line_stream(lines, given, _name(split)) for split, lines in _read_lines(config).items()}
    return _corpus(config, Vocabulary(given.names), streams, given)


def _corpus(
    config: TextConfig,
    vocabulary: Vocabulary,
    streams: dict[str, np.ndarray],
    units: Units | None = None,
    left_out: dict[str, list[LeftOut]] | None = None,
) -> Corpus:
    fingerprint = _fingerprint(config, vocabulary if units is None else units, streams)
    return Corpus(vocabulary, **streams, fingerprint=fingerprint, units=units, left_out=left_out or {})


def _fingerprint(config: TextConfig, words: Vocabulary | Units, streams: Mapping[str, np.ndarray]) -> str:
    """See `Corpus`; a split without tokens is an `IrnnError`."""
    digest = hashlib.sha256((words.fingerprint if isinstance(words, Units) else json.dumps(words.words)).encode())
    for split in SPLITS:
        if not len(streams[split]):
            raise IrnnError(
                f"{_name(split)} of {config.dir or config.source} is empty; every split needs at least one line"
            )
        digest.update(f"{split} {len(streams[split])}".encode())
        for block in blocks_of(streams[split]):
            digest.update(block.astype("<i8").tobytes())
    return digest.hexdigest()


def _name(split: str) -> str:
    return f"the {split} split"


def _read_lines(config: TextConfig) -> dict[str, list[list[str]]]:
    """The words, or characters, of every line of the three splits."""
    lines = _read_words(config)
    if not config.characters:
        return lines
    return {split: [list(" ".join(words)) for words in lines[split]] for split in SPLITS}


def _read_words(config: TextConfig) -> dict[str, list[list[str]]]:
    if config.source == "quickstart":
        return quickstart_lines()
    assert config.dir is not None  # asked for by the configuration
    if config.source == "folder":
        return {split: _read_text_file(_find_split(Path(config.dir), split)) for split in SPLITS}
    return _read_parquet(config.dir, config.column)


def _find_split(folder: Path, split: str) -> Path:
    if not folder.is_dir():
        raise IrnnError(f"dir={folder} is not a folder; give the folder that holds train.txt, valid.txt, test.txt")
    names = (f"{split}.txt", f"ptb.{split}.txt")
    found = [folder / name for name in names if os.path.lexists(folder / name)]
    if not found:
        raise IrnnError(f"dir={folder} holds neither {names[0]} nor {names[1]}; add the file or mend `dir`")
    if len(found) > 1:
        raise IrnnError(f"dir={folder} holds both {names[0]} and {names[1]}; keep the one that is meant")
    return found[0]


def _read_text_file(path: Path) -> list[list[str]]:
    lines = [_words(line) for line in read_lines(path)]
    if not any(lines):
        raise IrnnError(f"{path} is empty; it must hold one sentence a line, words separated by blanks")
    return lines


def _words(line: str) -> list[str]:
    """Words of a line: between blanks of any kind that Unicode knows, tabs and no-break spaces among them."""
    return line.split()


def _read_parquet(folder: str, column: str) -> dict[str, list[list[str]]]:
    names = {"train": "train", "valid": "validation", "test": "test"}
    lines: dict[str, list[list[str]]] = {}
    for split, name in names.items():
        files = f"{folder.rstrip('/')}/{name}/*.parquet"
        sentences = text_column(open_parquet(files), column, files)
        for number, sentence in enumerate(sentences, start=1):
            if sentence is None:
                raise IrnnError(f"{files}: row {number} of the column {column!r} is null; add its text or remove it")
        lines[split] = [_words(sentence) for sentence in sentences if sentence is not None]
    return lines
