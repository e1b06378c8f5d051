"""Log mel filterbanks as Kaldi computes them, and their normalization."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from irnn.data.audio.torchaudio_import import torchaudio
from irnn.errors import IrnnError

# Kaldi's features are those of 16-bit samples.
_FULL_SCALE = 32768.0
# Lowest log energy: that of digital silence would be -15.9 (the logarithm of float32's epsilon), far from everything
# that a microphone records, and would widen every quantized range. Kaldi adds random dither instead.
LOG_FLOOR = 0.0


@dataclass(frozen=True)
class FeatureConfig:
    """sample_rate: Hz; audio at another rate is resampled.  num_mel_bins: filters between 20 Hz and half that rate.
    frame_length_ms, frame_shift_ms: analysis window (Povey's) and its step.
    utterance_mean: subtract from every filter its mean over the utterance, and with it much of what a voice and a
        microphone do to all that is said (mean normalization, as of cepstra: Atal 1974)."""

    sample_rate: int = 16000
    num_mel_bins: int = 80
    frame_length_ms: float = 25.0
    frame_shift_ms: float = 10.0
    utterance_mean: bool = False

    def __post_init__(self) -> None:
        if not 4000 <= self.sample_rate <= 48000:
            raise IrnnError(f"sample_rate={self.sample_rate} is out of range; allowed: 4000 to 48000 (Hz)")
        if not 8 <= self.num_mel_bins <= 128:
            raise IrnnError(f"num_mel_bins={self.num_mel_bins} is out of range; allowed: 8 to 128")
        if not 0 < self.frame_shift_ms <= self.frame_length_ms <= 100:
            raise IrnnError(
                f"frame_shift_ms={self.frame_shift_ms}, frame_length_ms={self.frame_length_ms}: "
                "needed is 0 < shift <= length <= 100"
            )
        empty = _empty_filters(self)
        if empty:
            raise IrnnError(
                f"num_mel_bins={self.num_mel_bins}: {empty} of the filters hold no frequency of the "
                f"spectrum at {self.sample_rate} Hz; take fewer bins or a longer `frame_length_ms`"
            )

    @property
    def frame_length(self) -> int:
        """Samples of one analysis window."""
        return int(self.sample_rate * self.frame_length_ms / 1000)

    @property
    def frames_per_second(self) -> float:
        return 1000.0 / self.frame_shift_ms


@lru_cache
def _empty_filters(config: FeatureConfig) -> int:
    padded = 1 << (config.frame_length - 1).bit_length()
    banks, _ = torchaudio().compliance.kaldi.get_mel_banks(
        config.num_mel_bins, padded, float(config.sample_rate), 20.0, 0.0, 100.0, -500.0, 1.0
    )
    return int((banks.sum(dim=1) == 0).sum())


def filterbank(samples: np.ndarray, config: FeatureConfig, where: str = "the audio") -> np.ndarray:
    """Log mel energies float32 [frames, num_mel_bins] of `samples` float32 [samples] in -1 to 1.

    Only whole windows count: frames = 1 + (samples - frame_length) // shift. Audio shorter than one window is an
    `IrnnError` that names `where`, and so are samples so large that their energy is infinite.
    """
    if len(samples) < config.frame_length:
        raise IrnnError(
            f"{where} has {len(samples)} samples at {config.sample_rate} Hz, less than the {config.frame_length} of "
            "one frame; replace or remove it"
        )
    features = torchaudio().compliance.kaldi.fbank(
        torch.from_numpy(samples)[None] * _FULL_SCALE,
        num_mel_bins=config.num_mel_bins,
        sample_frequency=float(config.sample_rate),
        frame_length=config.frame_length_ms,
        frame_shift=config.frame_shift_ms,
    )
    if not torch.isfinite(features).all():
        raise IrnnError(
            f"{where} has samples up to {np.abs(samples).max():.3g}, too large for features; scale it to -1 to 1"
        )
    return features.clamp_(min=LOG_FLOOR).numpy()


@dataclass(frozen=True)
class Normalization:
    """mean, std: of every feature over the frames of the training split, float32 [num_mel_bins].
    utterance_mean: utterances are centred first, and mean and std are those of centred ones."""

    mean: np.ndarray
    std: np.ndarray
    utterance_mean: bool = False

    @classmethod
    def from_sums(
        cls, total: np.ndarray, squares: np.ndarray, frames: int, utterance_mean: bool = False
    ) -> Normalization:
        """From the sums (float64 [num_mel_bins]) of the features and of their squares over `frames` frames."""
        mean = total / frames
        variance = np.maximum(squares / frames - mean**2, 0)
        # A feature that never changes carries nothing: its deviation of 0 must not be divided by.
        std = np.sqrt(np.where(variance < 1e-6, 1.0, variance))
        return cls(mean.astype(np.float32), std.astype(np.float32), utterance_mean)

    def apply(self, features: np.ndarray) -> np.ndarray:
        """(features - mean) / std of one utterance, float32 [frames, num_mel_bins]: 0 is the training split's mean."""
        if features.shape[-1] != len(self.mean):
            raise IrnnError(
                f"features with {features.shape[-1]} bins do not fit a normalization of {len(self.mean)}; "
                "compute them with the configuration of the training"
            )
        if self.utterance_mean:
            features = centred(features)
        return (features - self.mean) / self.std


def centred(features: np.ndarray) -> np.ndarray:
    """Features [frames, num_mel_bins] of one utterance less their mean over the frames."""
    return features - features.mean(axis=0, keepdims=True)
