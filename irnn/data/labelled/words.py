"""Spoken words, one a recording: isolated digits of real speakers, and of the embedded synthesis."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from irnn.data.audio.reading import file_fingerprint, read_audio
from irnn.data.audio.utterances import NO_SPLIT, Utterance
from irnn.data.folders import shown
from irnn.data.labelled.config import DigitWordsConfig, SyntheticWordsConfig
from irnn.data.speech.digits import DEV_INDICES, DIGITS, TEST_INDICES, find_recordings
from irnn.data.speech.synthetic_speech import SPLIT_SEEDS, VERSION, speak

LABELS = DIGITS


def digit_words(config: DigitWordsConfig) -> dict[str, list[Utterance]]:
    """train, dev, test of the corpus' own split by index, each utterance's text its label; under `NO_SPLIT` recordings
    that cannot be used, where there are any."""
    found, faulty = find_recordings(Path(config.dir or ""))
    splits: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
    for speaker, digits in sorted(found.items()):
        for digit, files in sorted(digits.items()):
            for index, path in sorted(files.items()):
                split = "test" if index in TEST_INDICES else "dev" if index in DEV_INDICES else "train"
                splits[split].append(_recording(path, digit, speaker, config.features.sample_rate))
    return splits | ({NO_SPLIT: faulty} if faulty else {})


def _recording(path: Path, digit: int, speaker: str, rate: int) -> Utterance:
    return Utterance(
        id=path.stem,
        text=LABELS[digit],
        speaker=speaker,
        where=shown(path),
        identity=f"{file_fingerprint(path)} {rate}",
        read=partial(read_audio, path, rate),
    )


def synthetic_words(config: SyntheticWordsConfig) -> dict[str, list[Utterance]]:
    """Words of train, dev and test. Word k of a split depends on the split and k alone."""
    counts = {"train": config.train_words, "dev": config.evaluation_words, "test": config.evaluation_words}
    rate = config.features.sample_rate
    return {split: [_word(split, k, rate) for k in range(count)] for split, count in counts.items()}


def _word(split: str, number: int, rate: int) -> Utterance:
    seed = [SPLIT_SEEDS[split], number, 2]
    word = LABELS[np.random.default_rng(seed).integers(len(LABELS))]
    name = f"{split}-word-{number:05d}"
    return Utterance(
        id=name,
        text=word,
        speaker=name,
        where=f"synthetic word {name}",
        identity=f"word {VERSION} {split} {number} {rate}",
        read=partial(speak, [word], seed, rate),
    )
