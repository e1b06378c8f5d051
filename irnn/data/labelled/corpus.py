"""A corpus of labelled sequences that is ready for training: splits, features, labels and normalization."""

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
from irnn.data.labelled.config import DigitWordsConfig, LabelledConfig, SyntheticWordsConfig
from irnn.data.labelled.words import LABELS, digit_words, synthetic_words
from irnn.data.left_out import LeftOut
from irnn.errors import IrnnError

# source -> (its configuration, what reads its splits, its labels)
SOURCES: Mapping[str, tuple[type[LabelledConfig], Callable[[Any], dict[str, list[Utterance]]], tuple[str, ...]]] = {
    "synthetic_words": (SyntheticWordsConfig, synthetic_words, LABELS),
    "digit_words": (DigitWordsConfig, digit_words, LABELS),
}


@dataclass(frozen=True)
class LabelledSplit(AudioSplit):
    """labels: int64 [sequences], positions in the corpus' labels."""

    labels: np.ndarray


@dataclass(frozen=True)
class LabelledCorpus:
    """Splits train, dev and test, the names of the labels, and the normalization by the training split's frames.

    fingerprint: sha256 over everything that decides what a model sees: audio, labels, features.
    """

    config: LabelledConfig
    splits: dict[str, LabelledSplit]
    labels: tuple[str, ...]
    normalization: Normalization
    fingerprint: str
    without_split: list[LeftOut]

    @property
    def left_out(self) -> dict[str, list[LeftOut]]:
        """What was left out, by split, and under `no_split` what belongs to none."""
        return {name: split.left_out for name, split in self.splits.items()} | {NO_SPLIT: self.without_split}


def load_labelled(config: LabelledConfig) -> LabelledCorpus:
    """Read a corpus: find the recordings, compute or open their features, check that every split has every label.

    Recordings that cannot be used are an `IrnnError` (the first of them) or, with `config.leave_out`, listed in
    `left_out` with the same line.
    """
    wanted, read_splits, labels = SOURCES.get(config.source, (None, None, ()))
    if wanted is None or read_splits is None or not isinstance(config, wanted):
        raise IrnnError(f"source={config.source!r} is unknown; allowed: {', '.join(SOURCES)}")
    need_audio(files=not isinstance(config, SyntheticWordsConfig))
    found = read_splits(config)
    faulty = [LeftOut(utterance.id, utterance.fault) for utterance in found.pop(NO_SPLIT, [])]
    if faulty and not config.leave_out:
        raise IrnnError(faulty[0].reason)
    tables = {
        name: cached_features(
            utterances,
            config.features,
            Path(config.cache_dir),
            f"{config.source}-{name}",
            leave_out=config.leave_out,
        )
        for name, utterances in found.items()
    }
    splits = {name: _split(name, found[name], tables[name], labels) for name in found}
    missing = set(range(len(labels))) - set(splits["train"].labels.tolist())
    if missing:
        raise IrnnError(f"the train split of source={config.source} has no {labels[min(missing)]!r}; add some")
    content = [labels, [[name, tables[name].identity, len(split)] for name, split in splits.items()]]
    fingerprint = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return LabelledCorpus(config, splits, labels, tables["train"].normalization, fingerprint, faulty)


def _split(name: str, utterances: list[Utterance], table: FeatureTable, labels: tuple[str, ...]) -> LabelledSplit:
    rows = [row for row in range(len(utterances)) if row not in table.left_out]
    if not rows:
        raise IrnnError(f"the {name} split has no recording that can be used; mend `dir`")
    kept = [utterances[row] for row in rows]
    ids = np.array([labels.index(utterance.text) for utterance in kept])
    return LabelledSplit(kept, list(table.left_out.values()), table, rows, ids)
