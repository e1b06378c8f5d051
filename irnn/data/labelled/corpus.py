"""A corpus of labelled sequences that is ready for training: splits, features, labels and normalization."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from irnn.data.audio.augment import random_level, random_voice, spec_augment
from irnn.data.audio.feature_cache import FeatureTable, cached_features
from irnn.data.audio.reading import need_audio
from irnn.data.audio.splits import AudioSplit
from irnn.data.audio.utterances import NO_SPLIT, Utterance
from irnn.data.labelled.base import LabelledConfig, LabelledCorpus
from irnn.data.labelled.config import DigitWordsConfig, RecordingsConfig, SyntheticWordsConfig
from irnn.data.labelled.mnist import MnistConfig, load_mnist
from irnn.data.labelled.words import LABELS, digit_words, synthetic_words
from irnn.data.left_out import LeftOut
from irnn.errors import IrnnError

# source -> what reads its splits
_READERS: Mapping[str, Callable[[Any], dict[str, list[Utterance]]]] = {
    "synthetic_words": synthetic_words,
    "digit_words": digit_words,
}


@dataclass(frozen=True)
class RecordedSplit(AudioSplit):
    """labels: int64 [sequences], positions in the corpus' labels."""

    labels: np.ndarray


@dataclass(frozen=True)
class RecordedCorpus(LabelledCorpus):
    """Recordings with one label each, normalized by the training split's frames."""

    config: RecordingsConfig
    splits: Mapping[str, RecordedSplit]
    without_split: list[LeftOut]

    @property
    def feature_size(self) -> int:
        """Bands of the filterbank."""
        return self.config.features.num_mel_bins

    def metadata(self) -> dict[str, Any]:
        """How features are made and normalized."""
        mean, deviation = self.normalization.mean, self.normalization.std
        return {
            "features": dataclasses.asdict(self.config.features),
            "normalization": {"mean": mean.tolist(), "std": deviation.tolist()},
        }

    @property
    def left_out(self) -> dict[str, list[LeftOut]]:
        """What was left out, by split, and under `no_split` what belongs to none."""
        return {name: split.left_out for name, split in self.splits.items()} | {NO_SPLIT: self.without_split}

    @property
    def augmentation(self) -> dict[str, Any]:
        """See `AugmentConfig`."""
        return {"augment": self.config.augment.described}

    def augmented(self, features: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Another level and voice, and parts of it masked."""
        augment = self.config.augment
        other = random_voice(random_level(features, augment, generator), augment, generator)
        return spec_augment(self.normalization.apply(other), augment, generator)


def load_labelled(config: LabelledConfig) -> LabelledCorpus:
    """Read a corpus; what cannot be used of it is an `IrnnError`."""
    wanted, load = SOURCES.get(config.source, (None, None))
    if wanted is None or load is None or not isinstance(config, wanted):
        raise IrnnError(f"source={config.source!r} is unknown; allowed: {', '.join(SOURCES)}")
    return load(config)


def load_recordings(config: RecordingsConfig) -> RecordedCorpus:
    """Read a corpus: find the recordings, compute or open their features, check that every split has every label.

    Recordings that cannot be used are an `IrnnError` (the first of them) or, with `config.leave_out`, listed in
    `left_out` with the same line.
    """
    need_audio(files=not isinstance(config, SyntheticWordsConfig))
    found, labels = _READERS[config.source](config), LABELS
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
    return RecordedCorpus(config, splits, labels, tables["train"].normalization, fingerprint, faulty)


def _split(name: str, utterances: list[Utterance], table: FeatureTable, labels: tuple[str, ...]) -> RecordedSplit:
    rows = [row for row in range(len(utterances)) if row not in table.left_out]
    if not rows:
        raise IrnnError(f"the {name} split has no recording that can be used; mend `dir`")
    kept = [utterances[row] for row in rows]
    ids = np.array([labels.index(utterance.text) for utterance in kept])
    return RecordedSplit(kept, list(table.left_out.values()), table, rows, ids)


# source -> (its configuration, what loads it)
SOURCES: Mapping[str, tuple[type[LabelledConfig], Callable[[Any], LabelledCorpus]]] = {
    "synthetic_words": (SyntheticWordsConfig, load_recordings),
    "digit_words": (DigitWordsConfig, load_recordings),
    "mnist": (MnistConfig, load_mnist),
}
