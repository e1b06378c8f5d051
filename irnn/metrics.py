"""Log-softmax and perplexity: the float post-processing of logits, for every back end in this one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

# (ids [rows, time] int64, state or None) -> (outputs, the first of them logits [rows, time, vocabulary], state)
Run = Callable[[np.ndarray, Any], tuple[Sequence[Any], Any]]


def stream_chunks(tokens: np.ndarray, first: int, chunk: int, rows: int = 1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(inputs, targets) ``[rows, <= chunk]`` of one stream in which every token is a target.

    ``first`` (the end-of-sentence id) stands before the first token.  rows: equal parts of the stream side by side;
    the fewer than ``rows`` tokens that do not fill them are left out.
    """
    columns = len(tokens) // rows
    table = np.asarray(tokens[: rows * columns]).reshape(rows, columns)
    before = np.concatenate([[first], table[:-1, -1]]) if columns else np.empty(0, np.int64)
    for start in range(0, columns, chunk):
        targets = table[:, start : start + chunk].astype(np.int64)
        yield np.concatenate([before[:, None], targets[:, :-1]], axis=1), targets
        before = targets[:, -1]


def scores(outputs: Sequence[Any], scales: Sequence[float], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What a softmax over the last axis takes ``[..., vocabulary]``, of a program's outputs and their steps in reals.

    One output is the logits.  Several are those of the softmaxes of a mixture and, last, the logits ``[..., count]`` of
    their shares: the logarithms of the mixed probabilities.
    """
    real = [torch.as_tensor(y).to(dtype) * scale for y, scale in zip(outputs, scales, strict=True)]
    if len(real) == 1:
        return real[0]
    *logits, shares = real
    shares = torch.log_softmax(shares, -1)
    parts = [torch.log_softmax(each, -1) + shares[..., k, None] for k, each in enumerate(logits)]
    return torch.logsumexp(torch.stack(parts), 0)


def cross_entropy_sum(logits: Any, targets: np.ndarray) -> float:
    """Sum over all positions of ``-log softmax(logits)[target]`` in nats; logits ``[..., vocabulary]``."""
    rows = torch.as_tensor(logits).flatten(0, -2).to(torch.float32)
    classes = torch.as_tensor(targets).flatten().to(rows.device)
    return float(torch.nn.functional.cross_entropy(rows, classes, reduction="sum").double())


def stream_cross_entropy(
    run: Run, tokens: np.ndarray, first: int, *, scales: Sequence[float] = (1.0,), chunk: int = 512, rows: int = 1
) -> tuple[float, int]:
    """(total cross-entropy in nats, number of tokens) of one stream with carried state, as a batch of ``rows`` parts.

    ``scales`` are the real values of one step of each output (1 for float logits).  Perplexity is exp(total / number).
    Each part but the first starts from the initial state, so that figures of different ``rows`` are not the same.
    """
    total, count, state = 0.0, 0, None
    for inputs, targets in stream_chunks(tokens, first, max(1, chunk // rows), rows):
        outputs, state = run(inputs, state)
        total += cross_entropy_sum(scores(outputs, scales), targets)
        count += targets.size
    return total, count
