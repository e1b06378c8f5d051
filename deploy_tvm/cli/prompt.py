"""Next-token candidates of a built language model, for words or token ids from a command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deploy_tvm.artefact.exported import WORDS
from irnn.data.text.vocabulary import UNK, Vocabulary
from irnn.errors import IrnnError
from irnn.metrics import scores


def find_vocabulary(metadata: dict[str, Any], given: str | None) -> Vocabulary | None:
    """The words of a model: a named file, else those that the artefact was built with (`exported.build`)."""
    if given is not None:
        return Vocabulary.load(Path(given))
    return Vocabulary(metadata[WORDS]) if WORDS in metadata else None


def token_ids(texts: Iterable[str], count: int, vocabulary: Vocabulary | None) -> list[int]:
    """Words (where there is a vocabulary) or ids as text -> ids below ``count``; anything else is an ``IrnnError``.

    A text may hold several: words have no blanks in them, so `"the value" of` and `the value of` are the same.
    """
    ids = []
    for token in (token for text in texts for token in text.split()):
        if vocabulary is not None and token in vocabulary:
            ids.append(int(vocabulary.encode([[token]])[0]))
        elif token.isascii() and token.isdigit():
            if int(token) >= count:
                raise IrnnError(f"token id {token} is out of range; this program has ids 0 to {count - 1}")
            ids.append(int(token))
        elif vocabulary is None:
            raise IrnnError(
                f"{token!r} is no token id, and this program has no vocabulary: give ids 0 to {count - 1}, or words "
                "and --vocabulary FILE"
            )
        else:
            hint = f"; write {UNK} for a word that it does not know" if UNK in vocabulary else ""
            raise IrnnError(f"the word {token!r} is not in the program's vocabulary of {len(vocabulary)} words{hint}")
    if not ids:
        raise IrnnError("no token to start from: give words or ids as arguments or on standard input")
    return ids


def candidates(runner: Any, ids: Sequence[int], top: int) -> list[tuple[int, float]]:
    """The ``top`` likeliest next tokens after ``ids``, best first, with their probabilities."""
    outputs, _ = runner.run_all(np.asarray([ids], dtype=np.int64), runner.initial_state(1))
    last = [y[:, -1] for y in outputs]
    found = scores(last, runner.program.output_scales, torch.float64)[0].numpy()
    weights = np.exp(found - found.max())
    best = np.argsort(-weights, kind="stable")[:top]
    return [(int(k), float(weights[k] / weights.sum())) for k in best]
