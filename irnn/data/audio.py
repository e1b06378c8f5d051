"""Read audio files (FLAC, WAV and whatever else libsndfile knows) as mono samples at one rate."""

from __future__ import annotations

import hashlib
import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from irnn.data.torchaudio_import import torchaudio
from irnn.errors import IrnnError

# Polyphase filters grow with the terms of the reduced ratio of two rates; a ratio rounded to such terms is off by less
# than 1e-6, far below what a listener or a recognizer could tell.
_MAX_RATIO_TERM = 1000
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

    `source` is a file or the content of one; `where` is what messages call it. Anything but a readable file with at
    least one finite sample is an `IrnnError` that names it.
    """
    soundfile = _soundfile()
    where = where or str(source)
    if isinstance(source, Path) and not source.is_file():
        raise IrnnError(f"{where} is no file; mend the path of the recording")
    if not (source if isinstance(source, bytes) else source.stat().st_size):
        raise IrnnError(f"{where} is an empty file (zero length); replace or remove it")
    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            promised, rate = file.frames, file.samplerate
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        reason = getattr(error, "error_string", str(error)).strip().rstrip(".")
        raise IrnnError(
            f"{where} cannot be read as audio ({reason}); replace it by an intact FLAC or WAV file"
        ) from None
    if len(samples) == 0:
        raise IrnnError(f"{where} holds no samples (zero length); replace or remove it")
    if len(samples) < promised:
        raise IrnnError(f"{where} is truncated: {len(samples)} of {promised} samples can be read; replace it")
    return resample(checked_samples(samples.mean(axis=1), where), rate, sample_rate)


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
    try:
        with path.open("rb") as file:
            head = file.read(_FINGERPRINT_BYTES)
        return hashlib.sha256(f"{path.stat().st_size} ".encode() + head).hexdigest()[:24]
    except OSError:
        return "unreadable"
