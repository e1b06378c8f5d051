"""A speech corpus that is ready for training: splits, features, units and normalization."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from irnn.data.audio.feature_cache import FeatureTable, cached_features
from irnn.data.audio.features import Normalization
from irnn.data.audio.reading import need_audio
from irnn.data.audio.splits import AudioSplit
from irnn.data.audio.utterances import NO_SPLIT, Utterance
from irnn.data.left_out import LeftOut
from irnn.data.speech.digits import DigitsConfig, digit_splits
from irnn.data.speech.librispeech import LibriSpeechConfig, librispeech_splits
from irnn.data.speech.speech_config import SpeechConfig
from irnn.data.speech.synthetic_speech import SyntheticSpeechConfig, synthetic_splits
from irnn.data.speech.units import Units
from irnn.errors import IrnnError

# source -> (its configuration, what reads its splits)
SOURCES: Mapping[str, tuple[type[SpeechConfig], Callable[[Any], dict[str, list[Utterance]]]]] = {
    "synthetic_speech": (SyntheticSpeechConfig, synthetic_splits),
    "digits": (DigitsConfig, digit_splits),
    "librispeech": (LibriSpeechConfig, librispeech_splits),
    "librispeech_hub": (LibriSpeechConfig, librispeech_splits),
}


@dataclass(frozen=True)
class SpeechSplit(AudioSplit):
    """units: ids int64 [units] of every transcript, without begin and end."""

    name: str
    units: list[np.ndarray]


@dataclass(frozen=True)
class SpeechCorpus:
    """Splits (train, dev, test and perhaps more), vocabulary and normalization of one corpus.

    normalization: mean and deviation over the training split's frames.
    fingerprint: sha256 over everything that decides what a model sees: audio, transcripts, features, units.
    without_split: what was left out and belongs to no split that could be told.
    """

    config: SpeechConfig
    splits: dict[str, SpeechSplit]
    units: Units
    normalization: Normalization
    fingerprint: str
    without_split: list[LeftOut]

    @property
    def left_out(self) -> dict[str, list[LeftOut]]:
        """What was left out, by split, and under `no_split` what belongs to none."""
        return {name: split.left_out for name, split in self.splits.items()} | {NO_SPLIT: self.without_split}

    def split(self, name: str) -> SpeechSplit:
        """The split of that name; a missing one is an `IrnnError`."""
        if name not in self.splits:
            raise IrnnError(f"this corpus has no split {name!r}; it has: {', '.join(self.splits)}")
        return self.splits[name]


def speech_config_class(source: object) -> type[SpeechConfig]:
    """The configuration class of `source`; an unknown name is an `IrnnError`."""
    if source not in SOURCES:
        raise IrnnError(f"source={source!r} is unknown; allowed: {', '.join(SOURCES)}")
    return SOURCES[str(source)][0]


def load_speech(config: SpeechConfig) -> SpeechCorpus:
    """Read a corpus: find the utterances, compute or open their features, make the units, check everything.

    Utterances that cannot be used are an `IrnnError` (the first of them) or, with `config.leave_out`, listed in the
    split's `left_out` with the same line.
    """
    need_audio(files=not isinstance(config, SyntheticSpeechConfig))
    found, faulty = speech_splits(config)
    tables = {name: _features(utterances, config, name) for name, utterances in found.items()}
    units = training_units(found, config)
    splits = {name: _usable(name, found[name], tables[name], units, config, faulty[name]) for name in found}
    fingerprint = _fingerprint(splits, tables, units)
    return SpeechCorpus(config, splits, units, tables["train"].normalization, fingerprint, faulty[NO_SPLIT])


def speech_splits(config: SpeechConfig) -> tuple[dict[str, list[Utterance]], dict[str, list[LeftOut]]]:
    """(the utterances of every split, what the corpus' folder or lists show to be unusable, by split and `NO_SPLIT`).

    Whether their audio can be read is not known yet. A split without any is an `IrnnError`, and without
    `config.leave_out` the first unusable one.
    """
    wanted, read_splits = SOURCES.get(config.source, (None, None))
    if wanted is None or read_splits is None or not isinstance(config, wanted):
        raise IrnnError(f"source={config.source!r} is unknown; allowed: {', '.join(SOURCES)}")
    found = read_splits(config)
    faults = [utterance.fault for utterances in found.values() for utterance in utterances if utterance.fault]
    if faults and not config.leave_out:
        raise IrnnError(faults[0])
    left_out = {NO_SPLIT: [], **{name: _faults(utterances) for name, utterances in found.items()}}
    sound = {name: [u for u in found[name] if not u.fault] for name in found if name != NO_SPLIT}
    for name, utterances in sound.items():
        if not utterances and left_out[name]:
            raise IrnnError(_none_usable(name, left_out[name]))
        if not utterances:
            raise IrnnError(f"the {name} split of source={config.source} is empty; mend `dir` or the splits")
    return sound, left_out


def _faults(utterances: list[Utterance]) -> list[LeftOut]:
    # Two lines that contradict each other have one fault: one utterance is left out.
    return list(dict.fromkeys(LeftOut(u.id, u.fault) for u in utterances if u.fault))


def _none_usable(split: str, left_out: list[LeftOut]) -> str:
    return f"no utterance of the {split} split can be used; the first: {left_out[0].reason}"


def training_units(splits: Mapping[str, list[Utterance]], config: SpeechConfig) -> Units:
    """The units of a corpus: its training transcripts decide on them."""
    return Units.train((utterance.text for utterance in splits["train"]), config.units)


def encoded_transcript(utterance: Utterance, units: Units) -> np.ndarray:
    """Ids int64 [units], without begin and end; an empty transcript or an unknown unit is an `IrnnError`."""
    if not utterance.text:
        raise IrnnError(f"{utterance.where}: the transcript is empty; add it or remove the utterance")
    return units.encode(utterance.text, utterance.where)


def _features(utterances: list[Utterance], config: SpeechConfig, split: str) -> FeatureTable:
    return cached_features(
        utterances,
        config.features,
        Path(config.cache_dir),
        f"{config.source}-{split}",
        leave_out=config.leave_out,
    )


def _usable(
    name: str,
    utterances: list[Utterance],
    table: FeatureTable,
    units: Units,
    config: SpeechConfig,
    faulty: list[LeftOut],
) -> SpeechSplit:
    kept: list[int] = []
    ids: list[np.ndarray] = []
    # What fails for one reason at every speed is one recording.
    left_out: dict[tuple[str, str], LeftOut] = {}
    for row, utterance in enumerate(utterances):
        try:
            if row in table.left_out:
                raise IrnnError(table.left_out[row].reason)
            encoded = _checked_units(utterance, int(table.frames[row]), units, config)
        except IrnnError as error:
            if not config.leave_out:
                raise
            left_out.setdefault((utterance.where, str(error)), LeftOut(utterance.id, str(error)))
            continue
        kept.append(row)
        ids.append(encoded)
    unused = [*faulty, *left_out.values()]
    if not kept:
        raise IrnnError(_none_usable(name, unused))
    return SpeechSplit([utterances[row] for row in kept], unused, table, kept, name, ids)


def _checked_units(utterance: Utterance, frames: int, units: Units, config: SpeechConfig) -> np.ndarray:
    ids = encoded_transcript(utterance, units)
    seconds = frames / config.features.frames_per_second
    if config.max_seconds is not None and seconds > config.max_seconds:
        raise IrnnError(
            f"{utterance.where} lasts {seconds:.2f} s, longer than max_seconds={config.max_seconds:g}; "
            "raise that limit, or set leave_out=true"
        )
    return ids


def _fingerprint(splits: dict[str, SpeechSplit], tables: dict[str, FeatureTable], units: Units) -> str:
    content: list[Any] = [units.fingerprint]
    for name, split in splits.items():
        content.append([name, tables[name].identity, [(u.id, u.text) for u in split.utterances]])
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
