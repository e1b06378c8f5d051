"""Greedy and beam search over a step function; float, interpreter or compiled code may stand behind it.

A step takes the last token of each row and a state (None before the first) and gives the logits of the next::

    logits [rows, vocabulary], state = step(tokens int64 [rows], state)

Logits are anything that NumPy can read; the state is a dict of arrays whose first axis is the row, so that a search can
drop, repeat and reorder rows.  Log-softmax, length penalty and fusion with a language model are float post-processing
on the host.  The end and length rules are Espresso's.

A language model is a step as well.  It has read running lines, in which the end of a line comes before the next one and
no begin is known: where the recognizer reads the begin, it reads the end.  It starts without a state, as its training
did: what is recognized in an utterance does not depend on what was said in others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irnn.errors import IrnnError

State = dict[str, Any] | None
Step = Callable[[np.ndarray, State], tuple[Any, State]]


@dataclass(frozen=True)
class SearchConfig:
    """beam: hypotheses that are followed; 1 is the greedy search.
    length_penalty: a hypothesis' log-probability is divided by (units + end) to this power.
    max_length_factor, max_length_extra: at most factor * frames + extra units (and at least 1), then the end is forced.
    eos_factor: the end is allowed only where its log-probability is at least this multiple of the best other unit's
        (1.5 lets a somewhat less probable end through, 1 only the most probable); None: always.
    lm_weight: weight of a language model's log-probabilities, added to the recognizer's (shallow fusion)."""

    beam: int = 1
    length_penalty: float = 1.0
    max_length_factor: float = 0.08
    max_length_extra: int = 10
    eos_factor: float | None = None
    lm_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.beam < 1:
            raise IrnnError(f"search.beam={self.beam} must be at least 1")
        for name in ("length_penalty", "max_length_factor", "max_length_extra", "lm_weight"):
            if getattr(self, name) < 0:
                raise IrnnError(f"search.{name}={getattr(self, name)} must not be negative")
        if self.eos_factor is not None and self.eos_factor < 1:
            raise IrnnError(f"search.eos_factor={self.eos_factor} must be at least 1, or null")

    def max_length(self, frames: int) -> int:
        """Units that an utterance of so many frames may have."""
        return max(1, int(self.max_length_factor * frames + self.max_length_extra))


@dataclass(frozen=True)
class Tokens:
    """Ids with a meaning: what begins and ends a sequence, and what must not stand in one."""

    begin: int
    end: int
    forbidden: tuple[int, ...] = ()


@dataclass(frozen=True)
class Hypothesis:
    """tokens: without begin and end.  score: what ranks it, log_probability over the length penalty."""

    tokens: tuple[int, ...]
    score: float
    log_probability: float


def log_softmax(logits: Any) -> np.ndarray:
    """float64 log-probabilities over the last axis."""
    logits = np.asarray(logits, dtype=np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def greedy_search(
    step: Step, frames: Sequence[int], tokens: Tokens, config: SearchConfig, lm_step: Step | None = None
) -> list[Hypothesis]:
    """The most probable unit at each step, for a batch of utterances of ``frames`` frames at once."""
    rows = len(frames)
    limits = np.array([config.max_length(count) for count in frames])
    scorer = _Scorer(step, tokens, config, lm_step)
    last = np.full(rows, tokens.begin)
    state: tuple[State, State] = (None, None)
    found: list[list[int]] = [[] for _ in range(rows)]
    totals, running = np.zeros(rows), np.ones(rows, dtype=bool)
    for length in range(limits.max() + 1):
        scores, state = scorer(last, state, length >= limits)
        last = scores.argmax(axis=1)
        totals += np.where(running, scores[np.arange(rows), last], 0.0)
        running &= last != tokens.end
        for row in np.flatnonzero(running):
            found[row].append(int(last[row]))
        if not running.any():
            break
    return [_hypothesis(units, float(total), config) for units, total in zip(found, totals, strict=True)]


def beam_search(
    step: Step, frames: int, tokens: Tokens, config: SearchConfig, lm_step: Step | None = None
) -> list[Hypothesis]:
    """The best ``beam`` hypotheses of one utterance, best first.

    Each step looks at the ``2 * beam`` best continuations: ends among the first ``beam`` are finished, the first
    ``beam`` others go on.  The search stops when nothing that goes on could still come among the best:
    log-probabilities only fall, and the length penalty is at most that of the longest allowed hypothesis.
    """
    limit = config.max_length(frames)
    scorer = _Scorer(step, tokens, config, lm_step)
    state: tuple[State, State] = (None, None)
    units: list[tuple[int, ...]] = [()]
    last, totals = np.array([tokens.begin]), np.zeros(1)
    finished: list[Hypothesis] = []
    for length in range(limit + 1):
        scores, state = scorer(last, state, np.full(len(last), length == limit))
        candidates = totals[:, None] + scores
        order = np.argsort(-candidates, axis=None, kind="stable")[: 2 * config.beam]
        going_on: list[tuple[int, int]] = []
        for rank, position in enumerate(order):
            row, unit = divmod(int(position), candidates.shape[1])
            total = float(candidates[row, unit])
            if total == -np.inf:
                break
            if unit != tokens.end:
                going_on.append((row, unit))
            elif rank < config.beam:
                finished.append(_hypothesis(units[row], total, config))
        going_on = going_on[: config.beam]
        finished = sorted(finished, key=lambda h: -h.score)[: config.beam]
        if not going_on:
            break
        best = max(float(candidates[row, unit]) for row, unit in going_on)
        if len(finished) == config.beam and finished[-1].score >= best / (limit + 1) ** config.length_penalty:
            break
        rows = np.array([row for row, _ in going_on])
        last = np.array([unit for _, unit in going_on])
        units = [(*units[row], unit) for row, unit in going_on]
        totals = candidates[rows, last]
        state = (_rows(state[0], rows), _rows(state[1], rows))
    return finished


def _rows(state: State, rows: np.ndarray) -> State:
    return state and {name: value[rows] for name, value in state.items()}


class _Scorer:
    """Log-probabilities of the next unit under the rules of the search."""

    def __init__(self, step: Step, tokens: Tokens, config: SearchConfig, lm_step: Step | None) -> None:
        if (lm_step is None) != (config.lm_weight == 0):
            raise IrnnError(
                f"search.lm_weight={config.lm_weight} {'needs a' if lm_step is None else 'leaves out the'} language "
                "model; set the weight and the model together"
            )
        self.step, self.tokens, self.config, self.lm_step = step, tokens, config, lm_step

    def __call__(
        self, last: np.ndarray, state: tuple[State, State], at_limit: np.ndarray
    ) -> tuple[np.ndarray, tuple[State, State]]:
        """``[rows, vocabulary]``, -inf where a unit is not allowed; rows ``at_limit`` may only end."""
        logits, own = self.step(last, state[0])
        scores, fused = log_softmax(logits), None
        if self.lm_step is not None:
            before = np.where(last == self.tokens.begin, self.tokens.end, last)
            logits, fused = self.lm_step(before, state[1])
            scores = scores + self.config.lm_weight * log_softmax(logits)
        end = scores[:, self.tokens.end].copy()
        scores[:, [*self.tokens.forbidden, self.tokens.begin, self.tokens.end]] = -np.inf
        if self.config.eos_factor is not None:
            refused = (end < self.config.eos_factor * scores.max(axis=1)) & ~at_limit
            end[refused] = -np.inf
        scores[at_limit] = -np.inf
        scores[:, self.tokens.end] = end
        return scores, (own, fused)


def _hypothesis(units: Sequence[int], total: float, config: SearchConfig) -> Hypothesis:
    return Hypothesis(tuple(units), total / (len(units) + 1) ** config.length_penalty, total)
