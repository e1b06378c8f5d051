"""Audio files, filterbanks, their cache, augmentation and units."""

import dataclasses
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
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
from irnn.data.audio.feature_cache import cached_features
from irnn.data.audio.features import FeatureConfig, Normalization, filterbank
from irnn.data.audio.reading import change_speed, file_fingerprint, read_audio, resample
from irnn.data.audio.utterances import Utterance
from irnn.data.speech.units import BLANK, BOS, EOS, Units, UnitsConfig
from irnn.errors import IrnnError
from tests.support.speech_files import tone

NARROW = FeatureConfig(sample_rate=8000, num_mel_bins=20)


@pytest.mark.parametrize(("name", "subtype"), [("a.wav", "PCM_16"), ("a.flac", "PCM_16"), ("a.wav", "FLOAT")])
def test_reads_what_was_written(tmp_path: Path, name: str, subtype: str) -> None:
    samples = np.round(tone(0.1, 16000) * 32767) / 32768
    soundfile.write(tmp_path / name, samples, 16000, subtype=subtype)
    read = read_audio(tmp_path / name, 16000)
    assert read.dtype == np.float32
    assert np.array_equal(read, samples.astype(np.float32))
    assert np.array_equal(read, read_audio((tmp_path / name).read_bytes(), 16000))


def test_stereo_becomes_the_mean_of_its_channels(tmp_path: Path) -> None:
    left, right = tone(0.1, 8000, 300), tone(0.1, 8000, 500)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 8000, subtype="FLOAT")
    assert np.array_equal(read_audio(tmp_path / "a.wav", 8000), (left + right) / 2)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 44101, 48000, 96000])
def test_any_rate_becomes_the_wanted_one(rate: int) -> None:
    """A tone far below both limits stays the tone that it is."""
    expected = tone(0.5, 16000)
    got = resample(tone(0.5, rate), rate, 16000)
    assert abs(len(got) - len(expected)) <= 1
    middle = slice(1000, 7000)  # the filters see the edges
    assert np.abs(got[middle] - expected[middle]).max() < 0.01


def test_speed_moves_length_and_pitch() -> None:
    faster = change_speed(tone(1.0, 8000, 400), 1.25)
    assert len(faster) == 6400
    assert np.abs(faster[500:5900] - tone(0.8, 8000, 500)[500:5900]).max() < 0.01
    with pytest.raises(IrnnError, match=r"speed factor 3 is out of range"):
        change_speed(tone(0.1, 8000), 3)


def _truncated(path: Path) -> None:
    soundfile.write(path, tone(1.0, 16000) + np.random.default_rng(0).normal(0, 0.01, 16000), 16000)
    path.write_bytes(path.read_bytes()[:4000])


def _wav(samples: np.ndarray) -> Callable[[Path], None]:
    return lambda path: soundfile.write(path, samples, 16000, subtype="FLOAT", format="WAV")


BAD_AUDIO = {
    "garbage.flac": (lambda path: path.write_bytes(b"no audio at all"), "cannot be read as audio"),
    "truncated.flac": (_truncated, "cannot be read as audio|truncated"),
    "empty.flac": (lambda path: path.touch(), "is an empty file"),
    "zero.wav": (_wav(np.zeros(0, np.float32)), "zero length"),
    "nan.wav": (_wav(np.array([0, 1, np.nan] * 400, np.float32)), "400 samples are NaN or infinite, the first at posi"),
    "missing.wav": (lambda path: None, "is no file"),
    "short.wav": (_wav(tone(0.01, 16000)), "160 samples at 16000 Hz, less than the 400 of one frame"),
}


@pytest.mark.parametrize("name", BAD_AUDIO)
def test_bad_audio_is_one_line_that_names_the_file(tmp_path: Path, name: str) -> None:
    write, message = BAD_AUDIO[name]
    write(tmp_path / name)
    with pytest.raises(IrnnError, match=message) as caught:
        filterbank(read_audio(tmp_path / name, 16000), FeatureConfig(), str(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


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


def utterance(number: int, read: Callable[[], np.ndarray] | None = None) -> Utterance:
    sound = tone(0.1 + 0.05 * number, 8000, 300 + 100 * number)
    return Utterance(f"u{number}", "a", "s", f"file{number}.wav", str(number), read or (lambda: sound))


def _never() -> np.ndarray:
    raise AssertionError("the cache must answer")


def test_cache_gives_the_features_back_without_audio(tmp_path: Path) -> None:
    asked = [utterance(k) for k in range(4)]
    first = cached_features(asked, NARROW, tmp_path, "x", leave_out=False)
    again = cached_features([utterance(k, _never) for k in range(4)], NARROW, tmp_path, "x", leave_out=False)
    for k in range(4):
        expected = filterbank(asked[k].read(), NARROW)
        assert np.array_equal(first[k], expected)
        assert np.array_equal(again[k], expected)
        assert again.frames[k] == len(expected)
    assert first.identity == again.identity
    every = np.concatenate([first[k] for k in range(4)]).astype(np.float64)
    assert np.allclose(again.normalization.mean, every.mean(axis=0), atol=1e-4)
    assert np.allclose(again.normalization.std, every.std(axis=0), atol=1e-4)


def test_cache_counts_centred_utterances(tmp_path: Path) -> None:
    config = dataclasses.replace(NARROW, utterance_mean=True)
    sounds = [np.random.default_rng(k).normal(0, 0.1 * (k + 1), 4000).astype(np.float32) for k in range(3)]
    asked = [utterance(k, lambda k=k: sounds[k]) for k in range(3)]
    plain = cached_features(asked, NARROW, tmp_path, "x", leave_out=False)
    table = cached_features(asked, config, tmp_path, "x", leave_out=False)
    assert table.identity != plain.identity
    assert np.array_equal(table[1], filterbank(asked[1].read(), config))  # what is stored can still be augmented
    every = np.concatenate([table[k].astype(np.float64) - table[k].mean(axis=0) for k in range(3)])
    assert table.normalization.utterance_mean
    assert np.allclose(table.normalization.mean, 0, atol=1e-4)
    assert np.allclose(table.normalization.std, every.std(axis=0), atol=1e-4)


def test_cache_tells_configurations_and_audio_apart(tmp_path: Path) -> None:
    def identity(config: FeatureConfig, *asked: Utterance) -> str:
        return cached_features(asked, config, tmp_path, "x", leave_out=False).identity

    other_audio = Utterance("u0", "a", "s", "file0.wav", "changed", lambda: tone(0.2, 8000))
    seen = [
        identity(NARROW, utterance(0)),
        identity(NARROW, utterance(0), utterance(1)),
        identity(NARROW, other_audio),
        identity(FeatureConfig(8000, 21), utterance(0)),
    ]
    assert len(set(seen)) == 4


def _request(folder: Path, log: Path) -> None:
    torch.set_num_threads(1)  # a forked process waits for ever for the threads that its parent's OpenMP had

    def read() -> np.ndarray:
        with log.open("a") as file:
            file.write("read\n")
        return tone(0.2, 8000)

    cached_features([utterance(k, read) for k in range(5)], NARROW, folder, "x", leave_out=False)


def test_concurrent_runs_compute_features_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    runs = [context.Process(target=_request, args=(tmp_path / "cache", log)) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs] == [0, 0, 0]
    assert log.read_text() == "read\n" * 5


def test_cache_survives_a_run_that_was_killed(tmp_path: Path) -> None:
    def dies() -> np.ndarray:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_features([utterance(0), utterance(1, dies)], NARROW, tmp_path, "x", leave_out=False)
    table = cached_features([utterance(0), utterance(1)], NARROW, tmp_path, "x", leave_out=False)
    assert np.array_equal(table[1], filterbank(utterance(1).read(), NARROW))


@pytest.mark.parametrize("damage", ["index.json", "features.npy"])
def test_damaged_cache_is_named(tmp_path: Path, damage: str) -> None:
    cached_features([utterance(0)], NARROW, tmp_path, "x", leave_out=False)
    path = next(tmp_path.glob(f"x-*/{damage}"))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(IrnnError, match=r"x-.* is damaged; delete that folder"):
        cached_features([utterance(0)], NARROW, tmp_path, "x", leave_out=False)


def test_bad_audio_stops_or_is_listed(tmp_path: Path) -> None:
    def broken() -> np.ndarray:
        raise IrnnError("file1.wav is broken")

    asked = [utterance(0), utterance(1, broken), utterance(2)]
    with pytest.raises(IrnnError, match=r"file1\.wav is broken"):
        cached_features(asked, NARROW, tmp_path, "x", leave_out=False)
    assert not list(tmp_path.glob("x-*"))
    table = cached_features(asked, NARROW, tmp_path, "x", leave_out=True)
    assert table.frames.tolist() == [8, 0, 18]
    assert table.left_out == {1: ("u1", "file1.wav is broken")}
    assert np.array_equal(table[2], filterbank(asked[2].read(), NARROW))
    with pytest.raises(IrnnError, match=r"file1\.wav is broken"):  # the cache must not hide it
        cached_features(asked, NARROW, tmp_path, "x", leave_out=False)


def test_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IrnnError, match=r"cannot be written .*; set `cache_dir`"):
        cached_features([utterance(0)], NARROW, tmp_path / "file", "x", leave_out=False)


def test_fingerprint_of_a_file_follows_its_content(tmp_path: Path) -> None:
    for name, hertz in (("a", 300), ("b", 300), ("c", 301)):
        soundfile.write(tmp_path / f"{name}.flac", tone(0.5, 8000, hertz), 8000)
    a, b, c = (file_fingerprint(tmp_path / f"{name}.flac") for name in "abc")
    assert a == b != c


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


TEXTS = ["THE CAT SAT", "A MAN'S HAT", "THE HAT SAT ON A CAT", "THAT MAN SAT"] * 5


@pytest.mark.parametrize(
    "config", [UnitsConfig("characters"), UnitsConfig("words"), UnitsConfig("sentencepiece", size=16)]
)
def test_units_round_trip_and_survive_saving(tmp_path: Path, config: UnitsConfig) -> None:
    units = Units.train(TEXTS, config)
    for text in TEXTS[:4]:
        ids = units.encode(text)
        assert ids.dtype == np.int64
        assert ids.min() > EOS
        assert ids.max() < len(units)
        assert units.decode([BOS, *ids, BLANK, EOS]) == text
    units.save(tmp_path)
    loaded = Units.load(tmp_path)
    assert loaded.describe() == units.describe()
    assert np.array_equal(loaded.encode(TEXTS[1]), units.encode(TEXTS[1]))
    assert Units.train(TEXTS, config).fingerprint == units.fingerprint
    with pytest.raises(IrnnError, match=r"file\.flac: '(Z|ZOO)' is not among the \d+"):
        units.encode("THE ZOO", "file.flac")
    with pytest.raises(IrnnError, match=f"unit id {len(units)} is out of range"):
        units.decode([len(units)])


def test_ids_of_characters_are_fixed() -> None:
    units = Units.train(["B A", "A"], UnitsConfig("characters"))
    assert units.names == ["<blank>", "<bos>", "<eos>", " ", "A", "B"]
    assert np.array_equal(units.encode("A B"), [4, 3, 5])


def test_vocabulary_that_does_not_match_a_checkpoint_is_named() -> None:
    ours, theirs = (Units.train([text], UnitsConfig("characters")) for text in ("ABC", "ABCD"))
    ours.check_matches(ours.describe(), "model.safetensors")
    with pytest.raises(IrnnError, match=r"6 characters .* does not match model\.safetensors, which was trained with 7"):
        ours.check_matches(theirs.describe(), "model.safetensors")


def test_damaged_units_are_named(tmp_path: Path) -> None:
    with pytest.raises(IrnnError, match=r"no units at .*units\.json"):
        Units.load(tmp_path)
    Units.train(TEXTS, UnitsConfig("sentencepiece", size=16)).save(tmp_path / "a")
    Units.train(TEXTS, UnitsConfig("sentencepiece", size=17)).save(tmp_path / "b")
    (tmp_path / "a" / "units.model").write_bytes((tmp_path / "b" / "units.model").read_bytes())
    with pytest.raises(IrnnError, match=r"belongs to another units\.model"):
        Units.load(tmp_path / "a")
    (tmp_path / "a" / "units.json").write_text("{")
    with pytest.raises(IrnnError, match=r"units\.json is damaged JSON"):
        Units.load(tmp_path / "a")


def test_units_that_cannot_be_made_are_refused() -> None:
    for config, message in (
        (lambda: UnitsConfig("syllables"), "kind='syllables' is unknown"),
        (lambda: UnitsConfig("sentencepiece"), "the size belongs to sentencepiece"),
        (lambda: UnitsConfig("words", size=10), "the size belongs to sentencepiece"),
        (
            lambda: Units.train(TEXTS, UnitsConfig("sentencepiece", size=5000)),
            r"size=5000: SentencePiece .* \(Vocabulary size too high",
        ),
    ):
        with pytest.raises(IrnnError, match=message) as caught:
            config()
        assert "\n" not in str(caught.value)


def test_newer_choices_of_augmentation_rename_nothing_where_they_are_off() -> None:
    plain = AugmentConfig(warp=0.1, noise_snr_db=20).described
    assert not plain.keys() & {"noise_colour_db", "tempo"}
    assert plain["colour_db"] == 0
    assert AugmentConfig(warp=0.1, noise_snr_db=20, tempo=0.2).described == {**plain, "tempo": 0.2}
