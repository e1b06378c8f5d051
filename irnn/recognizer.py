"""A recognizer is what a search needs: ``encode`` once an utterance, ``step`` once a unit; with a model in PyTorch or
with programs (the interpreter's or compiled ones) behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from irnn.attention import Memory
from irnn.decoding import Hypothesis, SearchConfig, State, Step, Tokens, beam_search, greedy_search
from irnn.models.speech import SpeechModel
from irnn.program import Program


class Recognizer(Protocol):
    """``encode(features float32 [batch, frames, size], frames [batch])`` -> memory, batch first;
    ``decode(tokens [rows, steps], memory, state)`` -> (logits [rows, steps, vocabulary], attention, state)."""

    def encode(self, features: np.ndarray, frames: np.ndarray) -> Memory: ...

    def decode(self, tokens: np.ndarray, memory: Memory, state: State) -> tuple[Any, Any, State]: ...


@dataclass(frozen=True)
class ModelRecognizer:
    """A model in ``eval()``, in the numbers of its stage."""

    model: SpeechModel

    @torch.no_grad()
    def encode(self, features: np.ndarray, frames: np.ndarray) -> Memory:
        """See :class:`Recognizer`."""
        return self.model.encode(torch.as_tensor(features), torch.as_tensor(frames))

    @torch.no_grad()
    def decode(self, tokens: np.ndarray, memory: Memory, state: State) -> tuple[Any, Any, State]:
        """See :class:`Recognizer`."""
        return self.model.decode(torch.as_tensor(tokens), memory, state)


@dataclass(frozen=True)
class ProgramRecognizer:
    """Integer programs ``encoder`` and ``decoder``.

    run: what executes them, ``run[name].run_all(inputs, state)``; the programs themselves are the interpreter.
    """

    programs: Mapping[str, Program]
    run: Mapping[str, Any]

    def encode(self, features: np.ndarray, frames: np.ndarray) -> Memory:
        """See :class:`Recognizer`."""
        x = self.programs["encoder"].inputs["features"].quantize(features)
        outputs, _ = self.run["encoder"].run_all({"features": x, "lengths": np.asarray(frames, np.int32)})
        return Memory(*outputs)

    def decode(self, tokens: np.ndarray, memory: Memory, state: State) -> tuple[Any, Any, State]:
        """See :class:`Recognizer`; the attention is the integers."""
        inputs = {
            "tokens": np.asarray(tokens, np.int32), "memory": memory.values, "keys": memory.keys,
            "lengths": memory.lengths,
        }  # fmt: skip
        (logits_i32, weights), state = self.run["decoder"].run_all(inputs, state)
        return logits_i32 * self.programs["decoder"].logits_scale, weights, state


def search(
    recognizer: Recognizer,
    features: np.ndarray,
    frames: Sequence[int],
    tokens: Tokens,
    config: SearchConfig,
    lm_step: Step | None = None,
) -> list[Hypothesis]:
    """The best hypothesis of each utterance of a batch: features ``[batch, frames, size]``."""
    memory = recognizer.encode(features, np.asarray(frames))
    if config.beam == 1:
        return greedy_search(_step(recognizer, memory), frames, tokens, config, lm_step)
    return [
        beam_search(_step(recognizer, _rows(memory, [row])), count, tokens, config, lm_step)[0]
        for row, count in enumerate(frames)
    ]


def program_step(program: Program) -> Step:
    """A language model's program as the step of a search, for shallow fusion."""

    def step(tokens: np.ndarray, state: State) -> tuple[Any, State]:
        logits_i32, state = program.step(np.asarray(tokens, np.int32), state)
        return logits_i32 * program.logits_scale, state

    return step


def _step(recognizer: Recognizer, memory: Memory) -> Step:
    """The decoder over ``memory``; a memory of one row serves as many as the search asks for."""
    repeated = {len(memory.lengths): memory}

    def step(tokens: np.ndarray, state: State) -> tuple[Any, State]:
        rows = len(tokens)
        if rows not in repeated:
            repeated[rows] = _rows(memory, [0] * rows)
        logits, _, state = recognizer.decode(tokens[:, None], repeated[rows], state)
        return logits[:, 0], state

    return step


def _rows(memory: Memory, rows: list[int]) -> Memory:
    return Memory(memory.values[rows], memory.keys[rows], memory.lengths[rows])
