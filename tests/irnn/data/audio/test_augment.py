"""Augmentation: levels, voices, noise and masks on features."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irnn.data.audio.augment import (
    AugmentConfig,
    change_level,
    random_level,
    random_voice,
    spec_augment,
    stretched,
    warped,
)
from irnn.data.audio.features import filterbank
from irnn.errors import IrnnError
from tests.support.speech_files import NARROW


def test_level_of_features_is_that_of_the_audio() -> None:
    samples = np.random.default_rng(2).normal(0, 0.05, 4000).astype(np.float32)
    louder = filterbank((samples * 10 ** (6 / 20)).astype(np.float32), NARROW)
    assert np.abs(change_level(filterbank(samples, NARROW), 6) - louder).max() < 1e-3


def test_a_warped_axis_moves_what_stands_on_it() -> None:
    ramp = np.arange(20, dtype=np.float32)[None] * np.ones((3, 1), np.float32)
    assert np.allclose(warped(ramp, 0.9), 0.9 * ramp, atol=1e-5)
    assert np.allclose(warped(ramp, 1.1), np.minimum(1.1 * ramp, 19), atol=1e-5)
    assert np.array_equal(warped(ramp, 1.0), ramp)


def test_another_pace_keeps_the_order_of_what_is_said() -> None:
    ramp = np.arange(40, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)
    assert np.array_equal(stretched(ramp, 1.0), ramp)
    for factor, frames in ((0.75, 30), (1.25, 50), (0.01, 1)):
        other = stretched(ramp, factor)
        assert other.shape == (frames, 3)
        assert np.allclose(other[:, 0], np.clip((np.arange(frames) + 0.5) * 40 / frames - 0.5, 0, 39), atol=1e-4)
    lengths = {len(random_voice(ramp, AugmentConfig(tempo=0.25), np.random.default_rng(seed))) for seed in range(60)}
    assert min(lengths) in (30, 31)
    assert max(lengths) in (49, 50)


def test_another_voice_is_the_same_for_the_same_seed_and_leaves_the_utterance_alone() -> None:
    features = np.random.default_rng(0).normal(8, 2, size=(30, 20)).astype(np.float32)
    kept = features.copy()
    config = AugmentConfig(warp=0.2, colour_db=6, noise_snr_db=10)
    first, second, other = (random_voice(features, config, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert first.dtype == np.float32
    assert np.array_equal(features, kept)


def test_a_colour_is_the_same_at_every_frame_and_within_its_range() -> None:
    features = np.random.default_rng(0).normal(20, 1, size=(30, 20)).astype(np.float32)
    for seed in range(20):
        change = random_voice(features, AugmentConfig(colour_db=3), np.random.default_rng(seed)) - features
        assert np.abs(change - change[0]).max() < 1e-5
        assert 0 < np.abs(change).max() <= 3 * 3 * np.log(10) / 10 + 1e-5


def test_noise_has_the_ratio_that_was_drawn() -> None:
    features = np.full((400, 20), 15.0, np.float32)
    ratios = []
    for seed in range(40):
        noisy = random_voice(features, AugmentConfig(noise_snr_db=10), np.random.default_rng(seed))
        added = np.exp(noisy.astype(np.float64)) - np.exp(15.0)
        ratios.append(10 * np.log10(np.exp(15.0) / added.mean()))
    assert 9.5 < min(ratios) < 14
    assert 36 < max(ratios) < 40.5


def test_noise_has_a_colour_of_its_own() -> None:
    features = np.full((2000, 20), 15.0, np.float32)
    config = AugmentConfig(noise_snr_db=30, noise_colour_db=10)
    noisy = random_voice(features, config, np.random.default_rng(5)).astype(np.float64)
    spectrum = np.log(np.expm1(noisy - 15.0).mean(axis=0))
    white = random_voice(features, AugmentConfig(noise_snr_db=30), np.random.default_rng(5)).astype(np.float64)
    flat = np.log(np.expm1(white - 15.0).mean(axis=0))
    assert np.ptp(flat) < 0.3
    assert 1 < np.ptp(spectrum) < 2 * 3 * 10 * np.log(10) / 10


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_spec_augment_masks_bands_and_stretches_only(frames: int, seed: int) -> None:
    config = AugmentConfig(frequency_masks=1, frequency_width=5, time_masks=1, time_share=0.3)
    features = np.ones((frames, 20), np.float32)
    masked = spec_augment(features, config, np.random.default_rng(seed))
    assert np.array_equal(masked, spec_augment(features, config, np.random.default_rng(seed)))
    assert np.all(features == 1)
    columns, rows = (masked == 0).all(axis=0), (masked == 0).all(axis=1)
    assert np.array_equal(masked == 0, rows[:, None] | columns[None])
    for gone, most in ((columns, 5), (rows, int(0.3 * frames))):
        places = np.flatnonzero(gone)
        if not gone.all():  # all columns are masked where all rows are, and the reverse
            assert len(places) <= most
            assert len(places) == 0 or places[-1] - places[0] + 1 == len(places)


def test_augmentation_that_is_switched_off_changes_nothing() -> None:
    features = np.random.default_rng(0).normal(size=(30, 20)).astype(np.float32)
    generator = np.random.default_rng(0)
    assert np.array_equal(random_level(features, AugmentConfig(), generator), features)
    assert np.array_equal(random_voice(features, AugmentConfig(), generator), features)
    assert np.array_equal(spec_augment(features, AugmentConfig(), generator), features)
    with pytest.raises(IrnnError, match="colour_db=-1 must not be negative"):
        AugmentConfig(colour_db=-1)
    with pytest.raises(IrnnError, match=r"warp=0\.9 must be between 0 and 0\.5"):
        AugmentConfig(warp=0.9)
    with pytest.raises(IrnnError, match=r"tempo=0\.7 must be between 0 and 0\.5"):
        AugmentConfig(tempo=0.7)
    with pytest.raises(IrnnError, match=r"noise_colour_db=3 needs `noise_snr_db`"):
        AugmentConfig(noise_colour_db=3)
    with pytest.raises(IrnnError, match="noise_snr_db=50 must be less than 40, or null for no noise"):
        AugmentConfig(noise_snr_db=50)
    with pytest.raises(IrnnError, match="time_masks=-1 must not be negative"):
        AugmentConfig(time_masks=-1)
    with pytest.raises(IrnnError, match="time_share=2 must be between 0 and 1"):
        AugmentConfig(time_share=2)


def test_newer_choices_of_augmentation_rename_nothing_where_they_are_off() -> None:
    plain = AugmentConfig(warp=0.1, noise_snr_db=20).described
    assert not plain.keys() & {"noise_colour_db", "tempo"}
    assert plain["colour_db"] == 0
    assert AugmentConfig(warp=0.1, noise_snr_db=20, tempo=0.2).described == {**plain, "tempo": 0.2}
