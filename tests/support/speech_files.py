"""Small audio files and corpora for the tests of speech data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from irnn.data.audio.features import FeatureConfig

NARROW = FeatureConfig(sample_rate=8000, num_mel_bins=20)


def tone(seconds: float, rate: int, hertz: float = 440.0, level: float = 0.3) -> np.ndarray:
    """A sine, float32 [samples]."""
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_fsdd(
    folder: Path, speakers: tuple[str, ...] = ("ann", "bob", "george", "theo"), indices: tuple[int, ...] = (0, 4, 5, 8)
) -> Path:
    """A folder in the layout of the Free Spoken Digit Dataset: every recording a tone of its own between noises."""
    (folder / "recordings").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number, speaker in enumerate(speakers):
        for digit in range(10):
            for index in indices:
                sound = generator.normal(0, 0.002, 2000)
                sound[600:1500] += tone(900 / 8000, 8000, 200 + 100 * digit + 20 * number + index)
                soundfile.write(folder / "recordings" / f"{digit}_{speaker}_{index}.wav", sound, 8000)
    return folder


def write_librispeech(folder: Path, texts: dict[str, dict[str, str]], rate: int = 16000) -> Path:
    """The official layout from {subset: {utterance id: transcript}}; every utterance a tone of its own."""
    number = 0
    for subset, utterances in texts.items():
        for name, text in utterances.items():
            speaker, chapter, _ = name.split("-")
            place = folder / subset / speaker / chapter
            place.mkdir(parents=True, exist_ok=True)
            with (place / f"{speaker}-{chapter}.trans.txt").open("a") as file:
                file.write(f"{name} {text}\n")
            soundfile.write(place / f"{name}.flac", tone(0.2 + 0.05 * number, rate, 300 + 50 * number), rate)
            number += 1
    return folder
