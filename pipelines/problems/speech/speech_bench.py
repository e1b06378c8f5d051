"""How fast recognizers are: the real-time factor, seconds of computation for a second of audio."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence

import numpy as np

from irnn.recognition.decoding import SearchConfig, Tokens
from irnn.recognition.recognizer import Recognizer, search

_ROUNDS = 3


def real_time_factors(
    recognizers: Mapping[str, Recognizer],
    utterances: Sequence[np.ndarray],
    seconds: float,
    tokens: Tokens,
    config: SearchConfig,
) -> dict[str, float]:
    """Encoding and search of normalized features (float32 [frames, bins]), an utterance a call, by back end.

    seconds: audio that the utterances have been made of. The back ends take turns, so that a busy machine slows all of
    them; of an utterance the median of three rounds counts. Reading audio and making features is not part of it.
    """
    spent: dict[str, list[list[float]]] = {name: [[] for _ in utterances] for name in recognizers}
    for _ in range(_ROUNDS):
        for k, features in enumerate(utterances):
            for name, recognizer in recognizers.items():
                started = time.perf_counter()
                search(recognizer, features[None], [len(features)], tokens, config)
                spent[name][k].append(time.perf_counter() - started)
    return {name: sum(map(statistics.median, rounds)) / seconds for name, rounds in spent.items()}
