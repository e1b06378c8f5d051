"""LibriSpeech: a folder in the official layout, or the parquet files of the hub."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from irnn.data.audio.reading import change_speed, file_fingerprint, read_audio
from irnn.data.audio.utterances import NO_SPLIT, Utterance, marked_repeats, unusable
from irnn.data.folders import entries_under, recordings_of, shown
from irnn.data.speech.speech_config import SpeechConfig
from irnn.data.text.parquet import open_parquet, text_column
from irnn.data.text.text_files import Row, read_lines, read_table
from irnn.errors import IrnnError
from irnn.extras import extra

_SPLITS = ("train", "dev", "test")
_SPLITS_FILE = "splits.tsv"
_TRANSCRIPTS = ".trans.txt"
_COLUMNS = ("utt", "split", "speaker", "path", "transcript")
_HUB_COLUMNS = ("id", "text", "speaker_id", "audio")


@dataclass(frozen=True, kw_only=True)
class LibriSpeechConfig(SpeechConfig):
    """dir: with source=librispeech the folder that holds `train-clean-100/` ...; with source=librispeech_hub a folder
        or an `hf://datasets/...` address that holds folders of parquet files.
    train, dev, test: the subsets (names of folders) of each split. With source=librispeech a `splits.tsv` decides
        instead where there is one.
    speeds: every training utterance is there once at each of these speeds."""

    dir: str | None = None
    train: Sequence[str] = ("train-clean-100", "train-clean-360", "train-other-500")
    dev: Sequence[str] = ("dev-clean",)
    test: Sequence[str] = ("test-clean",)
    speeds: Sequence[float] = (1.0,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.dir:
            raise IrnnError("`dir` is not set; add dir=FOLDER, the folder that holds train-clean-100 and the like")
        for key in ("train", "dev", "test"):
            subsets = getattr(self, key)
            if isinstance(subsets, str) or not subsets:
                raise IrnnError(f"{key}={subsets!r} must list one or more subsets, for example [dev-clean]")
            object.__setattr__(self, key, tuple(subsets))
        object.__setattr__(self, "speeds", tuple(float(speed) for speed in self.speeds))
        if not self.speeds or not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise IrnnError(f"speeds={list(self.speeds)}: one or more factors from 0.5 to 2 are needed")


def librispeech_splits(config: LibriSpeechConfig) -> dict[str, list[Utterance]]:
    """Utterances of train, dev and test, sorted by id; transcripts as the corpus has them (upper case).

    What was found and cannot be used has a `fault`, and stands under `NO_SPLIT` where nothing tells its split.
    """
    rate = config.features.sample_rate
    if config.source == "librispeech_hub":
        _check_subsets(config)
        splits = {split: _hub_utterances(config, getattr(config, split)) for split in _SPLITS}
        splits = marked_repeats(splits, lambda utterance: utterance.where)
    else:
        folder = Path(config.dir or "")
        if not folder.is_dir():
            raise IrnnError(f"dir={folder} is not a folder; give the folder that holds train-clean-100 and so on")
        if os.path.lexists(folder / _SPLITS_FILE):
            splits = _listed_splits(folder, rate)
        else:
            _check_subsets(config)
            splits = {split: _folder_utterances(folder, getattr(config, split), rate) for split in _SPLITS}
        splits = marked_repeats(splits, lambda utterance: os.path.realpath(utterance.where))
    for utterances in splits.values():
        utterances.sort(key=lambda utterance: utterance.id)
    splits["train"] = [each for utterance in splits["train"] for each in _at_speeds(utterance, config.speeds)]
    return splits


def _check_subsets(config: LibriSpeechConfig) -> None:
    """An `IrnnError` where one subset would be read twice."""
    key_of: dict[str, str] = {}
    for key in _SPLITS:
        for subset in getattr(config, key):
            if subset in key_of:
                raise IrnnError(
                    f"`{key}` lists the subset {subset!r}, which `{key_of[subset]}` lists too; each is read once"
                )
            key_of[subset] = key


def _at_speeds(utterance: Utterance, speeds: Sequence[float]) -> list[Utterance]:
    return [utterance] if utterance.fault else [_at_speed(utterance, speed) for speed in speeds]


def _at_speed(utterance: Utterance, speed: float) -> Utterance:
    if speed == 1:
        return utterance
    return dataclasses.replace(
        utterance,
        id=f"{utterance.id}-x{speed:g}",
        identity=f"{utterance.identity} x{speed:g}",
        read=lambda: change_speed(utterance.read(), speed),
    )


def _utterance(name: str, text: str, path: Path, listed: str, rate: int) -> Utterance:
    return Utterance(
        id=name,
        text=" ".join(text.split()),
        speaker=name.split("-")[0],
        where=shown(path),
        identity=f"{file_fingerprint(path)} {rate}",
        read=partial(read_audio, path, rate),
        listed=listed,
    )


def _listed_splits(folder: Path, rate: int) -> dict[str, list[Utterance]]:
    """What `splits.tsv` says: columns utt, split, speaker, path (relative to the folder) and transcript.

    It is a choice: recordings in the folder that it does not name are no part of the corpus.
    """
    path = folder / _SPLITS_FILE
    splits: dict[str, list[Utterance]] = {split: [] for split in _SPLITS}
    for row in read_table(path, _COLUMNS):
        split = row.cells.get("split", "")
        utterance = _listed_utterance(row, path, rate)
        splits.setdefault(split if split in _SPLITS else NO_SPLIT, []).append(utterance)
    return splits


def _listed_utterance(row: Row, path: Path, rate: int) -> Utterance:
    listed = f"{shown(path)}, line {row.line}"
    cells = row.cells
    name = cells.get("utt") or f"line {row.line}"
    fault = row.fault
    if not fault and cells["split"] not in _SPLITS:
        fault = f"{listed}: {name} is of the split {cells['split']!r}; allowed: {', '.join(_SPLITS)}"
    for column in ("utt", "path"):
        if not fault and not cells[column].strip():
            fault = f"{listed}: the column {column!r} is empty; add what belongs there, or remove the line"
    if fault:
        return unusable(name, listed, fault)
    return _utterance(name, cells["transcript"], path.parent / cells["path"], listed, rate)


def _folder_utterances(folder: Path, subsets: Sequence[str], rate: int) -> list[Utterance]:
    """The official layout: `subset/speaker/chapter/speaker-chapter.trans.txt` beside the FLAC files it names."""
    utterances = []
    for subset in subsets:
        if not (folder / subset).is_dir():
            there = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir())) or "nothing"
            raise IrnnError(f"dir={folder} has no subset {subset!r}; there: {there}; mend `train`, `dev` or `test`")
        utterances += _subset_utterances(entries_under(folder / subset), rate)
    return utterances


def _subset_utterances(entries: Sequence[Path], rate: int) -> list[Utterance]:
    """What the lists of transcripts among `entries` name, and the recordings that none of them names."""
    utterances: list[Utterance] = []
    unreadable: dict[Path, str] = {}
    for path in entries:
        if path.name.endswith(_TRANSCRIPTS):
            try:
                utterances += _chapter(path, rate)
            except IrnnError as error:
                unreadable[path.parent] = str(error)
    named = {utterance.where for utterance in utterances}
    unnamed = [path for path in recordings_of(entries) if shown(path) not in named]
    for folder in unreadable.keys() - {path.parent for path in unnamed}:
        utterances.append(unusable(folder.name, shown(folder), unreadable[folder]))
    for path in unnamed:
        fault = unreadable.get(path.parent) or (
            f"{shown(path)} has no transcript: a *{_TRANSCRIPTS} beside it must name ID.flac in a line `ID TEXT`; "
            "add the line or remove the file"
        )
        utterances.append(unusable(shown(path.stem), shown(path), fault))
    return utterances


def _chapter(path: Path, rate: int) -> list[Utterance]:
    """The utterances of one list of transcripts, a line each: id, blank, text."""
    utterances = []
    for number, line in enumerate(read_lines(path), start=1):
        name, _, text = line.strip().replace("\t", " ").partition(" ")
        if name:
            listed = f"{shown(path)}, line {number}"
            utterances.append(_utterance(name, text, path.parent / f"{name}.flac", listed, rate))
    return utterances


def _hub_utterances(config: LibriSpeechConfig, subsets: Sequence[str]) -> list[Utterance]:
    with extra("train"):
        from datasets import Audio

    utterances = []
    for subset in subsets:
        files = f"{(config.dir or '').rstrip('/')}/{subset}/*.parquet"
        table = open_parquet(files)
        missing = [column for column in _HUB_COLUMNS if column not in table.column_names]
        if missing:
            raise IrnnError(f"{files} has no column {missing[0]!r}; columns: {', '.join(table.column_names)}")
        texts = text_column(table, "text", files)
        try:
            # Undecoded: `datasets` would want one more package to decode what soundfile reads.
            table = table.cast_column("audio", Audio(decode=False))
        except (NotImplementedError, TypeError, ValueError) as error:  # the kinds of Arrow's refusals
            raise IrnnError(f"{files}: the column 'audio' holds no audio ({error}); it needs bytes and path") from None
        rows = table.select_columns(["id", "speaker_id"])
        for position, (row, text) in enumerate(zip(rows, texts, strict=True)):
            utterances.append(_hub_utterance(table, position, row, text, files, config.features.sample_rate))
    return utterances


def _hub_utterance(
    table: Any, position: int, row: dict[str, Any], text: str | None, files: str, rate: int
) -> Utterance:
    listed = f"row {position + 1} of {files}"
    if row["id"] is None:
        return unusable(f"row {position + 1}", listed, f"{listed} has no id; add it or remove the row")
    where = f"{row['id']} in {files}"

    def read() -> np.ndarray:
        audio = table[position]["audio"] or {"bytes": None, "path": None}
        if audio["bytes"] is None and audio["path"] is None:
            raise IrnnError(f"{where} holds no audio, neither bytes nor a path; add it or remove the row")
        return read_audio(Path(audio["path"]) if audio["bytes"] is None else audio["bytes"], rate, where)

    # The files' own identity: `datasets` derives it from their names, sizes and dates.
    identity = hashlib.sha256(f"{table._fingerprint} {position} {rate}".encode()).hexdigest()[:24]
    words = " ".join((text or "").split())
    return Utterance(str(row["id"]), words, str(row["speaker_id"]), where, identity, read, listed)
