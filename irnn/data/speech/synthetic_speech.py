"""The embedded speech corpus: digits as sequences of formant-filtered tones and noises. It needs no files.

Not speech that a listener would take for such, but with its structure: voiced sounds are harmonics of a gliding pitch
under two resonances, fricatives are bands of noise, words are two to four of them, speakers differ in pitch, tempo and
size of the vocal tract, and there is background noise. A small model learns it within a minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from irnn.data.audio.utterances import Utterance
from irnn.data.speech.digits import DIGITS, join
from irnn.data.speech.speech_config import SpeechConfig, at_least

# Version of the synthesis, part of the features' identity.
VERSION = 1
# Vowels and other voiced sounds: two formants in Hz. Rough values of English.
_VOICED = {
    "i": (280, 2250),
    "I": (400, 1920),
    "e": (550, 1770),
    "a": (730, 1090),
    "o": (570, 840),
    "u": (310, 870),
    "n": (250, 1400),
    "r": (420, 1300),
    "w": (300, 610),
}
# Fricatives and bursts: a band of noise in Hz.
_NOISES = {"s": (2600, 3900), "f": (1200, 3600), "t": (1800, 3200), "k": (900, 1900), "z": (2300, 3300)}
_WORDS = {
    "zero": "zIro",
    "one": "wan",
    "two": "tu",
    "three": "fri",
    "four": "for",
    "five": "faif",
    "six": "sIks",
    "seven": "sefen",
    "eight": "eit",
    "nine": "nain",
}
# Part of every split's random numbers: speakers and strings of one split never return in another.
SPLIT_SEEDS = {"train": 1, "dev": 2, "test": 3}


@dataclass(frozen=True, kw_only=True)
class SyntheticSpeechConfig(SpeechConfig):
    """train_strings, evaluation_strings: strings of the training set and of dev and test each.
    max_digits: a string has 1 to so many digits."""

    train_strings: int = 400
    evaluation_strings: int = 60
    max_digits: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "train_strings", "evaluation_strings", "max_digits")


def synthetic_splits(config: SyntheticSpeechConfig) -> dict[str, list[Utterance]]:
    """Strings of train, dev and test. String k of a split depends on the split and k alone."""
    counts = {"train": config.train_strings, "dev": config.evaluation_strings, "test": config.evaluation_strings}
    rate, longest = config.features.sample_rate, config.max_digits
    return {split: [_string(split, k, longest, rate) for k in range(count)] for split, count in counts.items()}


def _string(split: str, number: int, max_digits: int, rate: int) -> Utterance:
    generator = np.random.default_rng([SPLIT_SEEDS[split], number])
    words = [DIGITS[k] for k in generator.integers(0, 10, size=generator.integers(1, max_digits + 1))]
    name = f"{split}-{number:05d}"
    return Utterance(
        id=name,
        text=" ".join(words),
        speaker=name,
        where=f"synthetic string {name}",
        identity=f"{VERSION} {split} {number} {max_digits} {rate}",
        read=partial(speak, words, [SPLIT_SEEDS[split], number, 1], rate),
    )


def speak(words: list[str], seed: list[int], rate: int) -> np.ndarray:
    """The string `words` by a speaker drawn from `seed`: float32 [samples]."""
    generator = np.random.default_rng(seed)
    pitch = generator.uniform(90, 230)  # Hz
    tract = 0.92 + 0.2 * (pitch - 90) / 140 + generator.uniform(-0.04, 0.04)  # high voices have high formants
    tempo = generator.uniform(0.8, 1.2)
    pieces = [_pause(generator, rate)]
    for word in words:
        pieces += [_sound(sound, pitch, tract, tempo, generator, rate) for sound in _WORDS[word]]
        pieces.append(_pause(generator, rate))
    samples = join(pieces, round(0.010 * rate))
    noise = generator.normal(0, 10 ** generator.uniform(-3.3, -2.7), len(samples))
    return (samples * 10 ** generator.uniform(-0.6, 0) + noise).astype(np.float32)


def _pause(generator: np.random.Generator, rate: int) -> np.ndarray:
    return np.zeros(round(generator.uniform(0.06, 0.2) * rate), dtype=np.float32)


def _sound(
    sound: str, pitch: float, tract: float, tempo: float, generator: np.random.Generator, rate: int
) -> np.ndarray:
    count = round(generator.uniform(0.06, 0.10) / tempo * rate)
    if sound in _NOISES:
        low, high = (edge * tract for edge in _NOISES[sound])
        spectrum = np.fft.rfft(generator.normal(0, 1, count))
        frequencies = np.fft.rfftfreq(count, 1 / rate)
        spectrum[(frequencies < low) | (frequencies > high)] = 0
        wave = np.fft.irfft(spectrum, count)
        return (0.05 * wave / max(np.sqrt(np.mean(wave**2)), 1e-9)).astype(np.float32)
    seconds = np.arange(count) / rate
    glide = pitch * (1 + generator.uniform(-0.08, 0.08) * np.linspace(-1, 1, count))
    phase = 2 * np.pi * np.cumsum(glide) / rate
    harmonics = np.arange(1, int(min(3800, 0.47 * rate) / pitch))
    frequencies = harmonics * pitch
    gain = sum(1 / (1 + ((frequencies - formant * tract) / 90) ** 2) for formant in _VOICED[sound])
    gain = (gain + 0.01) / np.sqrt(harmonics)
    wave = (gain[:, None] * np.sin(harmonics[:, None] * phase)).sum(axis=0)
    swell = np.minimum(1, np.minimum(seconds, seconds[::-1]) / 0.015)
    return (0.12 * swell * wave / np.sqrt(np.mean(wave**2))).astype(np.float32)
