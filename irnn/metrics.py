"""Log-softmax and perplexity: the float post-processing of logits, for every back end in this one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

# (ids [1, time] int64, state or None) -> (logits [1, time, vocabulary], state)
Run = Callable[[np.ndarray, Any], tuple[Any, Any]]


def stream_chunks(tokens: np.ndarray, first: int, chunk: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(inputs, targets) ``[1, <= chunk]`` of one stream in which every token is a target.

    ``first`` (the end-of-sentence id) stands before the first token.
    """
    before = first
    for start in range(0, len(tokens), chunk):
        targets = np.asarray(tokens[start : start + chunk], dtype=np.int64)
        yield np.concatenate([[before], targets[:-1]])[None], targets[None]
        before = targets[-1]


def cross_entropy_sum(logits: Any, targets: np.ndarray, scale: float = 1.0) -> float:
    """Sum over all positions of ``-log softmax(scale * logits)[target]`` in nats; logits ``[..., vocabulary]``."""
    rows = torch.as_tensor(logits).flatten(0, -2).to(torch.float32)
    classes = torch.as_tensor(targets).flatten()
    return float(torch.nn.functional.cross_entropy(rows * scale, classes, reduction="sum").double())


def stream_cross_entropy(
    run: Run, tokens: np.ndarray, first: int, *, scale: float = 1.0, chunk: int = 512
) -> tuple[float, int]:
    """(total cross-entropy in nats, number of tokens) of one stream at batch 1 with carried state.

    ``scale`` is the real value of one step of the logits (1 for float logits).  Perplexity is exp(total / number).
    """
    total, state = 0.0, None
    for inputs, targets in stream_chunks(tokens, first, chunk):
        logits, state = run(inputs, state)
        total += cross_entropy_sum(logits, targets, scale)
    return total, len(tokens)
