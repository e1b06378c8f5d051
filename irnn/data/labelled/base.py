"""What every corpus of labelled sequences has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from irnn.data.audio.features import Normalization
from irnn.data.left_out import LeftOut
from irnn.data.speech.speech_config import at_least


@dataclass(frozen=True, kw_only=True)
class LabelledConfig:
    """source: name of the corpus, see `irnn.data.labelled.corpus.SOURCES`.
    batch_size: sequences of a training batch."""

    source: str
    batch_size: int = 32

    def __post_init__(self) -> None:
        at_least(self, 1, "batch_size")


class LabelledSplit(Protocol):
    """The sequences of one split."""

    def __len__(self) -> int: ...

    @property
    def frames(self) -> np.ndarray:
        """Steps of every sequence, int64."""

    @property
    def labels(self) -> np.ndarray:
        """int64 [sequences], positions in the corpus' labels."""

    def features(self, index: int) -> np.ndarray:
        """float32 [frames, size], read-only, not normalized."""


@dataclass(frozen=True)
class LabelledCorpus(ABC):
    """Splits train, dev and test, the names of the labels, and how features are normalized.

    fingerprint: sha256 over everything that decides what a model sees.
    """

    config: LabelledConfig
    splits: Mapping[str, LabelledSplit]
    labels: tuple[str, ...]
    normalization: Normalization
    fingerprint: str

    @property
    @abstractmethod
    def feature_size(self) -> int:
        """Features of one step."""

    @abstractmethod
    def metadata(self) -> dict[str, Any]:
        """How features are made and normalized, as JSON values."""

    @property
    def left_out(self) -> dict[str, list[LeftOut]]:
        """What was left out, by split."""
        return {}

    @property
    def augmentation(self) -> dict[str, Any]:
        """What training does to features, as JSON values."""
        return {}

    def augmented(self, features: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Features for training, normalized."""
        return self.normalization.apply(features)

    def together(self, split: str, members: list[int]) -> np.ndarray | None:
        """Features of several sequences at once, float32 [sequences, frames, size], normalized: of a corpus whose
        sequences are all of one length and are not augmented; None: each is read alone."""
        return None
