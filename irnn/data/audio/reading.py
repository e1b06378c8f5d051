"""Read audio files (FLAC, WAV and whatever else libsndfile knows) as mono samples at one rate."""

from __future__ import annotations

import hashlib
import io
import math
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from irnn.data.audio.audio_length import what_is_missing
from irnn.data.audio.torchaudio_import import torchaudio
from irnn.data.folders import shown
from irnn.errors import IrnnError

# Polyphase filters grow with the terms of the reduced ratio of two rates; a ratio rounded to such terms is off by less
# than 1e-6, far below what a listener or a recognizer could tell.
_MAX_RATIO_TERM = 1000
# Numbers of such a filter bank, the product of both terms: only rates above 50 kHz with odd ratios come near.
_MAX_RATIO_PRODUCT = 16_000_000
# Hz. What is below cannot carry speech, what is above was written by no converter: a damaged header.
_RATES = (1000, 1_000_000)
# Frames that libsndfile states for streams of unknown length.
_UNSTATED_FRAMES = 1 << 62
# Samples that are decoded at once: what a header says of their number is not to be trusted with memory.
_BLOCK = 1 << 22
# A FLAC header holds the MD5 of all samples, a WAV header the length: with the size that tells two recordings apart.
_FINGERPRINT_BYTES = 4096


def need_audio(*, files: bool) -> None:
    """An `IrnnError` unless the packages are there that make features, and that read files where there are `files`.

    Asked before the recordings are read: their absence is the fault of none of them.
    """
    torchaudio()
    if files:
        _soundfile()


def _soundfile() -> Any:
    try:
        import soundfile
    except ModuleNotFoundError:
        raise IrnnError("speech needs the package soundfile; install it with: pip install 'irnn[speech]'") from None
    return soundfile


def read_audio(source: Path | bytes, sample_rate: int, where: str | None = None) -> np.ndarray:
    """Samples as float32 [samples] in -1 to 1, channels averaged, at `sample_rate` Hz.

    `source` is a file or the content of one; `where` is what messages call it. Anything but a readable file that is as
    long as its header states, with at least one sample, all of them finite, is an `IrnnError` that names it.
    """
    where = where or ("the audio" if isinstance(source, bytes) else shown(source))
    _check_whole(source, where)
    samples, rate = _decoded(source, where)
    if not _RATES[0] <= rate <= _RATES[1]:
        raise IrnnError(f"{where} has a sample rate of {rate} Hz; allowed: {_RATES[0]} to {_RATES[1]}; replace it")
    with np.errstate(invalid="ignore", over="ignore"):  # infinite samples are told in the next line
        mono = samples.mean(axis=1)
    return resample(checked_samples(mono, where), rate, sample_rate)


def _check_whole(source: Path | bytes, where: str) -> None:
    """Raise an `IrnnError` where there is no file, nothing in it, or less than its header states."""
    if isinstance(source, Path) and not os.path.isfile(source):
        raise IrnnError(f"{where} is no file; mend the path of the recording")
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            missing = what_is_missing(file, size)
    except OSError as error:
        raise IrnnError(f"{where} cannot be read ({error.strerror}); mend the file or its permissions") from None
    if not size:
        raise IrnnError(f"{where} is an empty file (zero length); replace or remove it")
    if missing:
        raise IrnnError(f"{where} is truncated: {missing}; replace it")


def _decoded(source: Path | bytes, where: str) -> tuple[np.ndarray, int]:
    """(samples float32 [samples, channels], sample rate in Hz) of audio that libsndfile reads."""
    soundfile = _soundfile()
    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else os.fsencode(source)) as file:
            promised, rate, count = file.frames, file.samplerate, max(1, _BLOCK // file.channels)
            if promised >= _UNSTATED_FRAMES:
                raise IrnnError(f"{where} states no length: it was streamed; write it again, for example with sox")
            blocks = [file.read(count, dtype="float32", always_2d=True)]
            while len(blocks[-1]) == count:
                blocks.append(file.read(count, dtype="float32", always_2d=True))
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:  # TypeError: a name that ends in .raw
        reason = getattr(error, "error_string", str(error)).strip().rstrip(".")
        raise IrnnError(
            f"{where} cannot be read as audio ({reason}); replace it by an intact FLAC or WAV file"
        ) from None
    samples = np.concatenate(blocks)
    if len(samples) == 0:
        raise IrnnError(f"{where} holds no samples (zero length); replace or remove it, or finish its header")
    if len(samples) < promised:
        raise IrnnError(f"{where} is truncated: {len(samples)} of {promised} samples can be read; replace it")
    return samples, rate


def checked_samples(samples: np.ndarray, where: str) -> np.ndarray:
    """`samples` [samples] where all of them are numbers; NaN or infinity is an `IrnnError` that names `where`."""
    bad = ~np.isfinite(samples)
    if bad.any():
        first = int(bad.argmax())
        raise IrnnError(f"{where}: {bad.sum()} samples are NaN or infinite, the first at position {first}; replace it")
    return samples


def resample(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """`samples` float32 [samples] taken at `rate` Hz -> the same sound at `new_rate` Hz (windowed sinc)."""
    if rate == new_rate:
        return samples
    ratio = Fraction(rate, new_rate)
    if max(ratio.numerator, ratio.denominator) > _MAX_RATIO_TERM:
        ratio = ratio.limit_denominator(_MAX_RATIO_TERM)
    if ratio.numerator * ratio.denominator > _MAX_RATIO_PRODUCT:
        ratio = ratio.limit_denominator(math.isqrt(int(_MAX_RATIO_PRODUCT / ratio)))
    return _resample(samples, ratio)


def change_speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """Play `samples` float32 [samples] `factor` times as fast (pitch and formants move along); hundredths count."""
    if not 0.5 <= factor <= 2:
        raise IrnnError(f"speed factor {factor} is out of range; allowed: 0.5 to 2 (1 leaves the audio as it is)")
    ratio = Fraction(round(factor * 100), 100)
    return samples if ratio == 1 else _resample(samples, ratio)


def _resample(samples: np.ndarray, ratio: Fraction) -> np.ndarray:
    functional: Any = torchaudio().functional
    return functional.resample(torch.from_numpy(samples), ratio.numerator, ratio.denominator).numpy()


def file_fingerprint(path: Path) -> str:
    """Hash of a recording's size and header: equal recordings give equal values, without reading all of them."""
    if not os.path.isfile(path):  # a pipe would keep who opens it waiting
        return "unreadable"
    try:
        with path.open("rb") as file:
            head = file.read(_FINGERPRINT_BYTES)
            size = file.seek(0, os.SEEK_END)
            # Features of a file that is cut short must not be found under its name: once they were taken for whole.
            cut = b"cut" if what_is_missing(file, size) else b""
        return hashlib.sha256(f"{size} ".encode() + head + cut).hexdigest()[:24]
    except OSError:
        return "unreadable"
