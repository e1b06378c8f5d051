"""Filterbanks against their definition, and their normalization."""

import numpy as np
import pytest

from irnn.data.audio.features import FeatureConfig, Normalization, filterbank
from irnn.errors import IrnnError
from tests.support.speech_files import NARROW


def reference_filterbank(samples: np.ndarray, rate: int, bins: int) -> np.ndarray:
    """Kaldi's log mel energies from their definition, in float64: windows of 25 ms every 10 ms, 20 Hz to rate / 2."""
    length, shift = rate * 25 // 1000, rate // 100
    size = 1 << (length - 1).bit_length()
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / (length - 1))) ** 0.85

    def mel(hertz: np.ndarray) -> np.ndarray:
        return 1127 * np.log(1 + hertz / 700)

    edges = np.linspace(mel(np.float64(20)), mel(np.float64(rate / 2)), bins + 2)
    at = mel(np.arange(size // 2) * rate / size)
    rising = (at - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - at) / (edges[2:] - edges[1:-1])[:, None]
    weights = np.maximum(0, np.minimum(rising, falling))
    rows = []
    for start in range(0, len(samples) - length + 1, shift):
        frame = samples[start : start + length].astype(np.float64) * 32768
        frame -= frame.mean()
        frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
        power = np.abs(np.fft.rfft(frame * window, size)[: size // 2]) ** 2
        rows.append(np.log(weights @ power))
    return np.maximum(rows, 0)


@pytest.mark.parametrize(("rate", "bins"), [(16000, 80), (8000, 40)])
def test_filterbank_is_that_of_the_definition(rate: int, bins: int) -> None:
    samples = np.random.default_rng(1).normal(0, 0.1, rate // 2).astype(np.float32)
    features = filterbank(samples, FeatureConfig(rate, bins))
    assert features.dtype == np.float32
    assert features.shape == (48, bins)
    assert np.abs(features - reference_filterbank(samples, rate, bins)).max() < 0.002


def test_silence_stays_finite_at_the_floor() -> None:
    assert np.array_equal(filterbank(np.zeros(800, np.float32), NARROW), np.zeros((8, 20)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sample_rate": 100}, "sample_rate=100 is out of range"),
        ({"num_mel_bins": 500}, "num_mel_bins=500 is out of range"),
        ({"frame_shift_ms": 30.0}, "frame_shift_ms=30.0, frame_length_ms=25.0"),
        ({"sample_rate": 8000, "num_mel_bins": 128}, "of the filters hold no frequency"),
    ],
)
def test_impossible_features_are_refused(values: dict, message: str) -> None:
    with pytest.raises(IrnnError, match=message):
        FeatureConfig(**values)


def test_normalization_gives_mean_0_and_deviation_1() -> None:
    rows = np.random.default_rng(0).normal([3, -2, 5], [1, 4, 0], (1000, 3)).astype(np.float32)
    total, squares = rows.sum(axis=0, dtype=np.float64), np.square(rows, dtype=np.float64).sum(axis=0)
    normal = Normalization.from_sums(total, squares, 1000).apply(rows)
    assert np.abs(normal.mean(axis=0)).max() < 1e-4
    assert np.allclose(normal.std(axis=0), [1, 1, 0], atol=1e-4)
    with pytest.raises(IrnnError, match="features with 2 bins do not fit a normalization of 3"):
        Normalization.from_sums(total, squares, 1000).apply(rows[:, :2])


def test_an_utterance_is_centred_on_its_own_mean() -> None:
    rows = np.random.default_rng(1).normal([3, -2, 5], [1, 4, 2], (50, 3)).astype(np.float32)
    normal = Normalization(np.zeros(3, np.float32), np.array([1, 4, 2], np.float32), utterance_mean=True)
    assert np.abs(normal.apply(rows).mean(axis=0)).max() < 1e-5
    coloured = rows + np.array([2, -1, 7], np.float32)
    assert np.allclose(normal.apply(coloured), normal.apply(rows), atol=1e-5)
    assert not np.allclose(Normalization(normal.mean, normal.std).apply(coloured), normal.apply(rows), atol=1)
