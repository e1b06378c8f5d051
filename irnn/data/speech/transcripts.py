"""Text in a recognizer's units, for the language model that helps its search: transcripts of a corpus, or any lines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irnn.data.audio.utterances import NO_SPLIT, Utterance
from irnn.data.left_out import LeftOut
from irnn.data.speech.corpus import encoded_transcript, speech_splits, training_units
from irnn.data.speech.speech_config import SpeechConfig
from irnn.data.speech.units import EOS, Units
from irnn.errors import IrnnError, arguments_of

# Splits of a text corpus <- splits of a speech corpus.
_SPLITS = {"train": "train", "valid": "dev", "test": "test"}

Streams = dict[str, np.ndarray]


def transcript_streams(config: SpeechConfig, units: Units | None) -> tuple[Units, Streams, dict[str, list[LeftOut]]]:
    """(units, one stream a split, what was left out) of a speech corpus; no audio is read.

    units: those of a recognizer, or None for those that a recognizer trained on this corpus has.
    """
    with arguments_of(type(config), "speech."):
        found, faulty = speech_splits(config)
        units = training_units(found, config) if units is None else units
        streams, left_out = {}, {}
        for split, name in _SPLITS.items():
            streams[split], unused = _split_stream(found[name], units, config.leave_out)
            left_out[split] = [*faulty[name], *unused]
        left_out[NO_SPLIT] = faulty[NO_SPLIT]
    return units, streams, left_out


def line_stream(lines: Sequence[Sequence[str]], units: Units, where: str) -> np.ndarray:
    """Lines of words in one stream of units, int64 [tokens], the end after each line."""
    texts = ((" ".join(words), f"{where}, line {number}") for number, words in enumerate(lines, start=1))
    return _joined([units.encode(text, place) for text, place in texts])


def _split_stream(utterances: Sequence[Utterance], units: Units, leave_out: bool) -> tuple[np.ndarray, list[LeftOut]]:
    # A corpus may hold an utterance once at each of several speeds; its text is read once.
    once = {utterance.where: utterance for utterance in utterances}
    lines: list[np.ndarray] = []
    left_out: list[LeftOut] = []
    for utterance in once.values():
        try:
            lines.append(encoded_transcript(utterance, units))
        except IrnnError as error:
            if not leave_out:
                raise
            left_out.append(LeftOut(utterance.id, str(error)))
    return _joined(lines), left_out


def _joined(lines: Sequence[np.ndarray]) -> np.ndarray:
    end = np.array([EOS], dtype=np.int64)
    return np.concatenate([part for line in lines for part in (line, end)] or [end[:0]])
