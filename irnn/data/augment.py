"""Augmentation of features while training: level and SpecAugment. (Speed changes the audio: `audio.change_speed`.)"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from irnn.data.features import LOG_FLOOR
from irnn.errors import IrnnError


@dataclass(frozen=True)
class AugmentConfig:
    """level_db: an utterance becomes louder or softer by up to so many decibels.
    frequency_masks, frequency_width: so many bands of 0 to `frequency_width` mel bins are masked.
    time_masks, time_share: so many stretches of 0 to `time_share` of the utterance are masked (SpecAugment, Park et
    al. 2019). Zeros switch each of them off."""

    level_db: float = 0.0
    frequency_masks: int = 0
    frequency_width: int = 0
    time_masks: int = 0
    time_share: float = 0.0

    def __post_init__(self) -> None:
        for key in ("level_db", "frequency_masks", "frequency_width", "time_masks"):
            if getattr(self, key) < 0:
                raise IrnnError(f"data.augment.{key}={getattr(self, key)} must not be negative; 0 switches it off")
        if not 0 <= self.time_share <= 1:
            raise IrnnError(f"data.augment.time_share={self.time_share} must be between 0 and 1")


def change_level(features: np.ndarray, decibels: float) -> np.ndarray:
    """The features that the audio would have with a gain of `decibels`: log energies move by one constant."""
    return np.maximum(features + np.float32(decibels * math.log(10) / 10), np.float32(LOG_FLOOR))


def random_level(features: np.ndarray, config: AugmentConfig, generator: np.random.Generator) -> np.ndarray:
    """`change_level` by a uniformly drawn gain; `features` float32 [frames, bins], not normalized."""
    if not config.level_db:
        return features
    return change_level(features, generator.uniform(-config.level_db, config.level_db))


def spec_augment(features: np.ndarray, config: AugmentConfig, generator: np.random.Generator) -> np.ndarray:
    """Mask bands and stretches with 0, the mean; `features` float32 [frames, bins], normalized. Returns a copy."""
    features = features.copy()
    frames, bins = features.shape
    for _ in range(config.frequency_masks):
        start, stop = _stretch(bins, min(config.frequency_width, bins), generator)
        features[:, start:stop] = 0
    for _ in range(config.time_masks):
        start, stop = _stretch(frames, int(config.time_share * frames), generator)
        features[start:stop] = 0
    return features


def _stretch(length: int, longest: int, generator: np.random.Generator) -> tuple[int, int]:
    width = int(generator.integers(0, longest + 1))
    start = int(generator.integers(0, length - width + 1))
    return start, start + width
