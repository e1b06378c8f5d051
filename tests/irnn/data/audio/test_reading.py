"""Audio files: formats, channels, rates, speeds, fingerprints, and those that cannot be read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from irnn.data.audio.features import FeatureConfig, filterbank
from irnn.data.audio.reading import change_speed, file_fingerprint, read_audio, resample
from irnn.errors import IrnnError
from tests.support.speech_files import tone


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


def test_fingerprint_of_a_file_follows_its_content(tmp_path: Path) -> None:
    for name, hertz in (("a", 300), ("b", 300), ("c", 301)):
        soundfile.write(tmp_path / f"{name}.flac", tone(0.5, 8000, hertz), 8000)
    a, b, c = (file_fingerprint(tmp_path / f"{name}.flac") for name in "abc")
    assert a == b != c
