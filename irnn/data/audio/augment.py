"""Augmentation of features while training: level, voice, microphone, noise and SpecAugment.

(Speed changes the audio: `audio.change_speed`.)
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from irnn.data.audio.features import LOG_FLOOR
from irnn.errors import IrnnError

QUIETEST_NOISE_DB = 40
# A microphone's curve is a sum of so many cosines over the mel axis, the slowest half a wave long.
_COLOURS = 3
_NATS_PER_DB = math.log(10) / 10


@dataclass(frozen=True)
class AugmentConfig:
    """level_db: an utterance becomes louder or softer by up to so many decibels.
    warp: the mel axis is stretched or compressed by up to this share, as another vocal tract does (Jaitly and Hinton
        2013). colour_db: the spectrum is bent by smooth curves of up to so many decibels, as another microphone does.
    noise_snr_db: noise is added, at a signal-to-noise ratio between this and 40 decibels; null adds none.
    noise_colour_db: the noise's spectrum is bent as by `colour_db`.  tempo: utterances become longer or shorter by up
        to this share, voice and pitch staying what they are.
    frequency_masks, frequency_width: so many bands of 0 to `frequency_width` mel bins are masked.
    time_masks, time_share: so many stretches of 0 to `time_share` of the utterance are masked (SpecAugment, Park et
    al. 2019). Zeros switch each of them off."""

    level_db: float = 0.0
    warp: float = 0.0
    colour_db: float = 0.0
    noise_snr_db: float | None = None
    noise_colour_db: float = 0.0
    tempo: float = 0.0
    frequency_masks: int = 0
    frequency_width: int = 0
    time_masks: int = 0
    time_share: float = 0.0

    def __post_init__(self) -> None:
        for key in ("level_db", "colour_db", "noise_colour_db", "frequency_masks", "frequency_width", "time_masks"):
            if getattr(self, key) < 0:
                raise IrnnError(f"{key}={getattr(self, key)} must not be negative; 0 switches it off")
        for key, limit in (("time_share", 1), ("warp", 0.5), ("tempo", 0.5)):
            if not 0 <= getattr(self, key) <= limit:
                raise IrnnError(f"{key}={getattr(self, key)} must be between 0 and {limit}")
        if self.noise_snr_db is not None and not self.noise_snr_db < QUIETEST_NOISE_DB:
            raise IrnnError(
                f"noise_snr_db={self.noise_snr_db} must be less than {QUIETEST_NOISE_DB}, or null for no noise"
            )
        if self.noise_colour_db and self.noise_snr_db is None:
            raise IrnnError(f"noise_colour_db={self.noise_colour_db} needs `noise_snr_db`")

    @property
    def described(self) -> dict[str, Any]:
        """As JSON values; what was trained before there were the newer choices is found again where they are off."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if value or name not in ("noise_colour_db", "tempo")}


def change_level(features: np.ndarray, decibels: float) -> np.ndarray:
    """The features that the audio would have with a gain of `decibels`: log energies move by one constant."""
    return np.maximum(features + np.float32(decibels * _NATS_PER_DB), np.float32(LOG_FLOOR))


def random_level(features: np.ndarray, config: AugmentConfig, generator: np.random.Generator) -> np.ndarray:
    """`change_level` by a uniformly drawn gain; `features` float32 [frames, bins], not normalized."""
    if not config.level_db:
        return features
    return change_level(features, generator.uniform(-config.level_db, config.level_db))


def random_voice(features: np.ndarray, config: AugmentConfig, generator: np.random.Generator) -> np.ndarray:
    """Another pace, vocal tract, microphone and background; `features` float32 [frames, bins], not normalized."""
    bins = features.shape[1]
    if config.tempo:
        features = stretched(features, 1 + generator.uniform(-config.tempo, config.tempo))
    if config.warp:
        features = warped(features, 1 + generator.uniform(-config.warp, config.warp))
    if config.colour_db:
        features = np.maximum(features + _colour(bins, config.colour_db, generator), np.float32(LOG_FLOOR))
    if config.noise_snr_db is not None:
        ratio = generator.uniform(config.noise_snr_db, QUIETEST_NOISE_DB)
        level = np.log(np.exp(features.astype(np.float64)).mean()) - ratio * _NATS_PER_DB
        # Energies of Gaussian noise are distributed exponentially about their mean.
        noise = np.log(generator.standard_exponential(features.shape, dtype=np.float32) + np.float32(1e-6))
        if config.noise_colour_db:
            noise += _colour(bins, config.noise_colour_db, generator)
        features = np.logaddexp(features, noise + np.float32(level))
    return features


def _colour(bins: int, decibels: float, generator: np.random.Generator) -> np.ndarray:
    """A smooth curve over the mel axis, float32 [bins], in nats; each of its waves is up to `decibels` high."""
    heights = generator.uniform(-decibels, decibels, _COLOURS) * _NATS_PER_DB
    waves = np.cos(np.pi * np.arange(1, _COLOURS + 1)[:, None] * (np.arange(bins) + 0.5) / bins)
    return (heights @ waves).astype(np.float32)


def stretched(features: np.ndarray, factor: float) -> np.ndarray:
    """Features of `factor` times as many frames (rounded, one at least), interpolated; float32 [frames, bins]."""
    frames = len(features)
    count = max(1, round(frames * factor))
    place = np.clip((np.arange(count) + 0.5) * frames / count - 0.5, 0, frames - 1)
    before = place.astype(int)
    after = np.minimum(before + 1, frames - 1)
    share = (place - before).astype(np.float32)[:, None]
    return features[before] * (1 - share) + features[after] * share


def warped(features: np.ndarray, factor: float) -> np.ndarray:
    """Features whose bin b is what was at bin `factor * b`, interpolated; above the last bin its value goes on."""
    bins = features.shape[1]
    place = np.minimum(np.arange(bins) * factor, bins - 1)
    below = np.minimum(place.astype(int), bins - 2)
    share = (place - below).astype(np.float32)
    return features[:, below] * (1 - share) + features[:, below + 1] * share


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
