"""LibriSpeech: a folder in the official layout, or the parquet files of the hub."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from irnn.data.audio import change_speed, file_fingerprint, read_audio
from irnn.data.speech_config import SpeechConfig
from irnn.data.utterances import Utterance
from irnn.errors import IrnnError
from irnn.extras import extra

_SPLITS_FILE = "splits.tsv"
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
            raise IrnnError(
                "data.dir is not set; add data.dir=FOLDER, the folder that holds train-clean-100 and the like"
            )
        for key in ("train", "dev", "test"):
            subsets = getattr(self, key)
            if isinstance(subsets, str) or not subsets:
                raise IrnnError(f"data.{key}={subsets!r} must list one or more subsets, for example [dev-clean]")
            object.__setattr__(self, key, tuple(subsets))
        object.__setattr__(self, "speeds", tuple(float(speed) for speed in self.speeds))
        if not self.speeds or not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise IrnnError(f"data.speeds={list(self.speeds)}: one or more factors from 0.5 to 2 are needed")


def librispeech_splits(config: LibriSpeechConfig) -> dict[str, list[Utterance]]:
    """Utterances of train, dev and test, sorted by id; transcripts as the corpus has them (upper case)."""
    if config.source == "librispeech_hub":
        splits = {split: _hub_utterances(config, getattr(config, split)) for split in ("train", "dev", "test")}
    else:
        folder = Path(config.dir or "")
        if not folder.is_dir():
            raise IrnnError(f"data.dir={folder} is not a folder; give the folder that holds train-clean-100 and so on")
        rate = config.features.sample_rate
        if (folder / _SPLITS_FILE).is_file():
            splits = _listed_splits(folder, rate)
        else:
            splits = {
                split: _folder_utterances(folder, getattr(config, split), rate) for split in ("train", "dev", "test")
            }
    splits["train"] = [_at_speed(utterance, speed) for utterance in splits["train"] for speed in config.speeds]
    return splits


def _at_speed(utterance: Utterance, speed: float) -> Utterance:
    if speed == 1:
        return utterance
    return dataclasses.replace(
        utterance,
        id=f"{utterance.id}-x{speed:g}",
        identity=f"{utterance.identity} x{speed:g}",
        read=lambda: change_speed(utterance.read(), speed),
    )


def _utterance(name: str, text: str, path: Path, rate: int) -> Utterance:
    return Utterance(
        id=name,
        text=" ".join(text.split()),
        speaker=name.split("-")[0],
        where=str(path),
        identity=f"{file_fingerprint(path)} {rate}",
        read=partial(read_audio, path, rate),
    )


def _listed_splits(folder: Path, rate: int) -> dict[str, list[Utterance]]:
    """What `splits.tsv` says: columns utt, split, speaker, path (relative to the folder) and transcript."""
    path = folder / _SPLITS_FILE
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    missing = [column for column in _COLUMNS if not rows or rows[0].get(column) is None]
    if missing:
        raise IrnnError(f"{path} has no column {missing[0]!r}; needed, separated by tabs: {', '.join(_COLUMNS)}")
    splits: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
    for row in rows:
        if row["split"] not in splits:
            raise IrnnError(f"{path}: {row['utt']} is of the split {row['split']!r}; allowed: {', '.join(splits)}")
        splits[row["split"]].append(_utterance(row["utt"], row["transcript"] or "", folder / row["path"], rate))
    for utterances in splits.values():
        utterances.sort(key=lambda utterance: utterance.id)
    return splits


def _folder_utterances(folder: Path, subsets: Sequence[str], rate: int) -> list[Utterance]:
    """The official layout: `subset/speaker/chapter/speaker-chapter.trans.txt` beside the FLAC files it names."""
    utterances = []
    for subset in subsets:
        if not (folder / subset).is_dir():
            there = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir())) or "nothing"
            raise IrnnError(f"data.dir={folder} has no subset {subset!r}; there: {there}; mend data.train, dev, test")
        for transcripts in sorted((folder / subset).glob("*/*/*.trans.txt")):
            for line in transcripts.read_text(encoding="utf-8").splitlines():
                name, _, text = line.partition(" ")
                if name:
                    utterances.append(_utterance(name, text, transcripts.with_name(f"{name}.flac"), rate))
    return sorted(utterances, key=lambda utterance: utterance.id)


def _hub_utterances(config: LibriSpeechConfig, subsets: Sequence[str]) -> list[Utterance]:
    # Imported here: it takes a second, and a local folder does not need it.
    with extra("train"):
        from datasets import Audio, disable_progress_bars, load_dataset
        from datasets.exceptions import DatasetsError

    disable_progress_bars()
    utterances = []
    for subset in subsets:
        files = f"{(config.dir or '').rstrip('/')}/{subset}/*.parquet"
        try:
            table = load_dataset("parquet", data_files={"rows": files}, split="rows")
        except (OSError, ValueError, DatasetsError) as error:
            reason = str(error).splitlines()[0]
            raise IrnnError(f"the subset {subset!r} cannot be read from {files} ({reason}); mend data.dir") from None
        missing = [column for column in _HUB_COLUMNS if column not in table.column_names]
        if missing:
            raise IrnnError(f"{files} has no column {missing[0]!r}; columns: {', '.join(table.column_names)}")
        # Undecoded: `datasets` would want one more package to decode what soundfile reads.
        table = table.cast_column("audio", Audio(decode=False))
        words = table.remove_columns([name for name in table.column_names if name not in ("id", "text", "speaker_id")])
        for position, row in enumerate(words):
            utterances.append(_hub_utterance(table, position, row, files, config.features.sample_rate))
    return sorted(utterances, key=lambda utterance: utterance.id)


def _hub_utterance(table: Any, position: int, row: dict[str, Any], files: str, rate: int) -> Utterance:
    where = f"{row['id']} in {files}"

    def read() -> np.ndarray:
        audio = table[position]["audio"]
        return read_audio(audio["bytes"] or Path(audio["path"]), rate, where)

    # The files' own identity: `datasets` derives it from their names, sizes and dates.
    identity = hashlib.sha256(f"{table._fingerprint} {position} {rate}".encode()).hexdigest()[:24]
    text = " ".join((row["text"] or "").split())
    return Utterance(str(row["id"]), text, str(row["speaker_id"]), where, identity, read)
