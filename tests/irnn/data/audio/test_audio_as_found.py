"""Audio as it is found: cut short, streamed, with strange headers, rates, samples and names."""

import hashlib
import io
import os
import struct
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile

from irnn.data.audio.features import FeatureConfig, filterbank
from irnn.data.audio.reading import _resample, file_fingerprint, read_audio, resample
from irnn.errors import IrnnError
from irnn.recognition.decoding import SearchConfig
from pipelines.transcribe import main
from tests.support.speech_files import tone

SOUND = np.round((tone(3.0, 16000) + np.random.default_rng(0).normal(0, 0.01, 48000)) * 32767) / 32768


def refused(path: Path) -> str:
    with pytest.raises(IrnnError) as caught:
        filterbank(read_audio(path, 16000), FeatureConfig(), str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Ending -> how it is written. What is after it in a file's name does not matter.
FORMATS: dict[str, dict[str, str]] = {
    "wav": {"format": "WAV"},
    "float.wav": {"format": "WAV", "subtype": "FLOAT"},
    "adpcm.wav": {"format": "WAV", "subtype": "MS_ADPCM"},
    "big.wav": {"format": "WAV", "endian": "BIG"},
    "wavex": {"format": "WAVEX"},
    "rf64": {"format": "RF64"},
    "w64": {"format": "W64"},
    "aiff": {"format": "AIFF"},
    "svx": {"format": "SVX"},
    "au": {"format": "AU"},
    "little.au": {"format": "AU", "endian": "LITTLE"},
    "sph": {"format": "NIST"},
    "caf": {"format": "CAF"},
    "flac": {"format": "FLAC"},
    "ogg": {"format": "OGG"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3"},
}
# Formats in which a missing byte shows; what compresses may end in one that no sample needs.
STATED = FORMATS.keys() - {"adpcm.wav", "flac", "mp3"}


@pytest.mark.parametrize("ending", FORMATS)
def test_a_file_that_is_cut_is_never_taken_for_whole(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, SOUND, 16000, **FORMATS[ending])
    content = path.read_bytes()
    whole = len(read_audio(path, 16000))
    assert abs(whole - 48000) < 2500
    assert len(read_audio(content, 16000)) == whole
    for share in (0.02, 0.3, 0.5, 0.8, 0.97):
        path.write_bytes(content[: int(len(content) * share)])
        message = refused(path)
        assert str(path) in message
        with pytest.raises(IrnnError, match=r"^row 7"):
            read_audio(path.read_bytes(), 16000, "row 7")
    if ending in STATED:
        path.write_bytes(content[:-1])
        assert "is truncated" in refused(path)


def test_the_message_says_how_much_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, SOUND, 16000)
    path.write_bytes(path.read_bytes()[:-1000])
    assert refused(path) == f"{path} is truncated: its header states 1000 bytes more than it has; replace it"


def header(change: Callable[[bytearray], None]) -> Callable[[Path], None]:
    """A WAV file of 3 s whose header is changed."""

    def write(path: Path) -> None:
        soundfile.write(path, SOUND, 16000, format="WAV")
        content = bytearray(path.read_bytes())
        change(content)
        path.write_bytes(content)

    return write


def data_size(value: int) -> Callable[[Path], None]:
    return header(lambda content: content.__setitem__(slice(40, 44), struct.pack("<I", value)))


def sample_rate(value: int) -> Callable[[Path], None]:
    return header(lambda content: content.__setitem__(slice(24, 28), struct.pack("<I", value)))


@pytest.mark.parametrize("value", [0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_a_stream_that_states_no_length_is_read_to_its_end(tmp_path: Path, value: int) -> None:
    data_size(value)(tmp_path / "a.wav")
    assert np.array_equal(read_audio(tmp_path / "a.wav", 16000), SOUND.astype(np.float32))


def flac_frames(value: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        soundfile.write(path, SOUND, 16000, format="FLAC")
        content = bytearray(path.read_bytes())
        fields = int.from_bytes(content[18:26], "big") >> 36 << 36
        content[18:26] = (fields | value).to_bytes(8, "big")
        path.write_bytes(content)

    return write


def samples(values: np.ndarray, subtype: str = "FLOAT") -> Callable[[Path], None]:
    return lambda path: soundfile.write(path, values, 16000, format="WAV", subtype=subtype)


def _loop(path: Path) -> None:
    path.symlink_to(path)


W64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0"
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "0 bytes": (Path.touch, "is an empty file (zero length)"),
    "data 0": (data_size(0), "holds no samples (zero length); replace or remove it, or finish its header"),
    "1 byte more": (data_size(96001), "its header states 1 bytes more than it has"),
    "flac 0": (flac_frames(0), "states no length: it was streamed; write it again"),
    "flac huge": (flac_frames(2**36 - 1), "cannot be read as audio"),
    "flac one more": (flac_frames(48001), "cannot be read as audio"),
    "0 Hz": (sample_rate(0), "cannot be read as audio"),
    "1 Hz": (sample_rate(1), "has a sample rate of 1 Hz; allowed: 1000 to 1000000"),
    "999 Hz": (sample_rate(999), "has a sample rate of 999 Hz"),
    "1000001 Hz": (sample_rate(1_000_001), "has a sample rate of 1000001 Hz"),
    "1 GHz": (sample_rate(10**9), "has a sample rate of 1000000000 Hz"),
    "2^31 - 1 Hz": (sample_rate(2**31 - 1), "has a sample rate of 2147483647 Hz"),
    "2^32 - 1 Hz": (sample_rate(2**32 - 1), "cannot be read as audio"),
    "NaN": (samples(np.where(np.arange(8000) == 7, np.nan, SOUND[:8000])), "1 samples are NaN or infinite, the first"),
    "inf": (samples(np.where(np.arange(8000) == 7, np.inf, SOUND[:8000])), "position 7"),
    "stereo inf": (samples(np.tile([[np.inf, -np.inf]], (8000, 1))), "8000 samples are NaN or infinite"),
    "large": (samples(SOUND * 1e30), "too large for features; scale it to -1 to 1"),
    "larger": (samples(SOUND * 1e300, "DOUBLE"), "samples are NaN or infinite"),
    "no sample": (samples(SOUND[:0]), "holds no samples (zero length)"),
    "1 sample": (samples(SOUND[:1]), "1 samples at 16000 Hz, less than the 400 of one frame"),
    "399 samples": (samples(SOUND[:399]), "399 samples at 16000 Hz"),
    "text": (lambda path: path.write_text("hello\n"), "cannot be read as audio"),
    "RIFF": (lambda path: path.write_bytes(b"RIFF"), "cannot be read as audio"),
    "WAVE": (lambda path: path.write_bytes(b"RIFF\xff\xff\xff\xffWAVE"), "cannot be read as audio"),
    "chunks of 0": (lambda path: path.write_bytes(b"RIFF\xff\xff\xff\x7fWAVE" + bytes(100_000)), "cannot be read"),
    "W64": (lambda path: path.write_bytes(W64 + b"\xff" * 90), "cannot be read as audio"),
    "CAF": (lambda path: path.write_bytes(b"caff\0\1\0\0" + b"\x7f" * 90), "cannot be read as audio"),
    "SPHERE": (lambda path: path.write_bytes(b"NIST_1A\n   x\nsample_count -i 99\n"), "cannot be read as audio"),
    "Ogg": (lambda path: path.write_bytes(b"OggS"), "the page that ends an Ogg stream is not there"),
    "folder": (Path.mkdir, "is no file; mend the path"),
    "pipe": (os.mkfifo, "is no file; mend the path"),
    "loop": (_loop, "is no file; mend the path"),
    "dangling": (lambda path: path.symlink_to("nowhere"), "is no file; mend the path"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_audio_is_one_line_that_names_the_file(tmp_path: Path, name: str) -> None:
    write, message = BAD[name]
    path = tmp_path / "a b é.wav"
    write(path)
    told = refused(path)
    assert message in told
    assert str(path) in told


@pytest.mark.parametrize("name", ["x" * 300 + ".wav", "a\0b.wav"])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    assert "is no file; mend the path" in refused(tmp_path / name)
    assert file_fingerprint(tmp_path / ("x" * 300)) == "unreadable"


def test_a_pipe_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.flac")
    assert file_fingerprint(tmp_path / "a.flac") == "unreadable"


def test_raw_samples_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(20000))
    assert "cannot be read as audio" in refused(tmp_path / "a.raw")


def test_a_file_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions bind no test that runs as root: the system's refusal is made here."""
    samples(SOUND)(tmp_path / "a.wav")

    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    assert "a.wav cannot be read (Permission denied); mend the file or its permissions" in refused(tmp_path / "a.wav")


def test_names_may_have_blanks_and_any_bytes(tmp_path: Path) -> None:
    for name in ("a b.wav", "ü é.wav", "caf\udce9.wav", "a\nb.wav"):
        with open(tmp_path / name, "wb") as file:
            soundfile.write(file, SOUND, 16000, format="WAV")
        assert len(read_audio(tmp_path / name, 16000)) == 48000
    (tmp_path / "caf\udce9.wav").write_bytes(b"x")
    with pytest.raises(IrnnError, match=r"/caf\\xe9\.wav cannot be read as audio"):
        read_audio(tmp_path / "caf\udce9.wav", 16000)


@pytest.mark.parametrize(
    ("subtype", "step"),
    [("PCM_U8", 2**-7), ("PCM_16", 2**-15), ("PCM_24", 2**-23), ("PCM_32", 2**-24), ("FLOAT", 0), ("DOUBLE", 0)],
)
def test_samples_of_any_width_and_many_channels(tmp_path: Path, subtype: str, step: float) -> None:
    channels = np.stack([SOUND[:4000]] * 8, axis=1)
    soundfile.write(tmp_path / "a.wav", channels, 16000, subtype=subtype)
    read = read_audio(tmp_path / "a.wav", 16000)
    assert np.abs(read - SOUND[:4000].astype(np.float32)).max() <= step


def test_long_files_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for count in (999, 1000, 1001, 2000):
        samples(np.stack([SOUND[:count], -SOUND[:count] / 2], axis=1))(tmp_path / "a.wav")
        whole = read_audio(tmp_path / "a.wav", 16000)
        with monkeypatch.context() as patch:
            patch.setattr("irnn.data.audio.reading._BLOCK", 2000)
            assert np.array_equal(read_audio(tmp_path / "a.wav", 16000), whole)
        assert len(whole) == count


@pytest.mark.parametrize(
    ("rate", "new_rate"), [(999_983, 4000), (1_000_000, 4000), (96_001, 4000), (1000, 48000), (1009, 47_999)]
)
def test_extreme_ratios_keep_the_sound_and_little_memory(rate: int, new_rate: int) -> None:
    """A tone that both rates can carry, away from the edges that the filters see."""
    got, expected = resample(tone(1.0, rate, 200), rate, new_rate), tone(1.0, new_rate, 200)
    assert abs(len(got) - len(expected)) <= len(expected) // 1000 + 1
    middle = slice(new_rate // 4, new_rate // 2)
    assert np.abs(got[middle] - expected[middle]).max() < 0.02


def test_a_rate_that_was_fine_is_resampled_as_before() -> None:
    """The ratio of 44101 Hz to 16 kHz is rounded as it was when features of such files were first kept."""
    sound = tone(0.2, 44101)
    assert np.array_equal(
        resample(sound, 44101, 16000), _resample(sound, Fraction(44101, 16000).limit_denominator(1000))
    )


def test_features_of_a_cut_file_are_not_those_that_it_once_had(tmp_path: Path) -> None:
    """Such a file was taken for whole once, and its features may lie in a cache by the fingerprint of then."""
    path = tmp_path / "a.wav"
    samples(SOUND)(path)
    content = path.read_bytes()

    def once() -> str:
        head = path.read_bytes()[:4096]
        return hashlib.sha256(f"{path.stat().st_size} ".encode() + head).hexdigest()[:24]

    assert file_fingerprint(path) == once()
    path.write_bytes(content[:40000])
    assert file_fingerprint(path) != once()


def test_transcripts_are_shown_whatever_the_screen_can_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is no UTF-8 and a transcript of other letters, on a screen that knows ASCII alone."""

    class Recognizer:
        search = SearchConfig()

        def searching(self, settings: SearchConfig) -> "Recognizer":
            return self

        def transcribe(self, path: Path) -> str:
            return f"é {len(read_audio(path, 16000))}"

    monkeypatch.setattr("pipelines.problems.speech.recognizers.load_recognizer", lambda folder: Recognizer())
    good, cut = tmp_path / "caf\udce9.wav", tmp_path / "b.wav"
    for path in (good, cut):
        with open(path, "wb") as file:
            soundfile.write(file, SOUND, 16000, format="WAV")
    cut.write_bytes(cut.read_bytes()[:-1])
    screen, errors = io.BytesIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(screen, encoding="ascii"))
    monkeypatch.setattr(sys, "stderr", errors)
    assert main(["model", str(good), str(cut), str(good)]) == 1
    assert screen.getvalue() == os.fsencode(tmp_path) + b"/caf\\udce9.wav: \\xe9 48000\n"
    assert errors.getvalue() == f"error: {cut} is truncated: its header states 1 bytes more than it has; replace it\n"
