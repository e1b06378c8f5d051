"""A recognizer is what a search needs: ``encode`` once an utterance, ``step`` once a unit; with a model in PyTorch or
with programs (the interpreter's or compiled ones) behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from irnn.arithmetic.torch_ops import TORCH
from irnn.metrics import scores
from irnn.models.speech import IGNORED_TARGET, Batch, SpeechModel
from irnn.nn.attention import Memory
from irnn.program import Program
from irnn.program.interpreter import Interpreter
from irnn.recognition.decoding import Hypothesis, SearchConfig, State, Step, Tokens, beam_search, greedy_search

Numbers = np.ndarray | Tensor


class Recognizer(Protocol):
    """``encode(features float32 [batch, frames, size], frames [batch])`` -> memory, batch first;
    ``decode(tokens [rows, steps], memory, state)`` -> (logits [rows, steps, vocabulary], attention, state)."""

    def encode(self, features: Numbers, frames: Numbers) -> Memory: ...

    def decode(self, tokens: Numbers, memory: Memory, state: State) -> tuple[Any, Any, State]: ...


@dataclass(frozen=True)
class ModelRecognizer:
    """A model in ``eval()``, in the numbers of its stage."""

    model: SpeechModel

    @torch.no_grad()
    def encode(self, features: Numbers, frames: Numbers) -> Memory:
        """See :class:`Recognizer`."""
        return self.model.encode(torch.as_tensor(features), torch.as_tensor(frames))

    @torch.no_grad()
    def decode(self, tokens: Numbers, memory: Memory, state: State) -> tuple[Any, Any, State]:
        """See :class:`Recognizer`."""
        return self.model.decode(torch.as_tensor(tokens), memory, state)


@dataclass(frozen=True)
class ProgramRecognizer:
    """Programs ``encoder`` and ``decoder``, of integers or of float.

    run: what executes them, ``run[name].run_all(inputs, state)`` with NumPy arrays; integer programs themselves are the
    reference interpreter.
    """

    programs: Mapping[str, Program]
    run: Mapping[str, Any]

    def encode(self, features: Numbers, frames: Numbers) -> Memory:
        """See :class:`Recognizer`."""
        return Memory(*self.run["encoder"].run_all(encoder_inputs(self.programs, features, frames), None)[0])

    def decode(self, tokens: Numbers, memory: Memory, state: State) -> tuple[Any, Any, State]:
        """See :class:`Recognizer`; an integer program's attention is the integers."""
        (logits, weights), state = self.run["decoder"].run_all(decoder_inputs(tokens, memory), state)
        decoder = self.programs["decoder"]
        logits = logits if decoder.kind == "float" else np.asarray(logits) * decoder.logits_scale
        return logits, weights, state


def fast_interpreter(programs: Mapping[str, Program]) -> dict[str, Interpreter]:
    """The interpreter on PyTorch's integers: the reference's numbers, in a fraction of its time."""
    return {name: Interpreter(program, TORCH) for name, program in programs.items()}


def encoder_inputs(programs: Mapping[str, Program], features: Any, frames: Any) -> dict[str, np.ndarray]:
    """What the encoder's program reads for real features ``[batch, frames, size]``."""
    encoder, x = programs["encoder"], np.asarray(features)
    x = x if encoder.kind == "float" else encoder.inputs["features"].quantize(x)
    return {"features": x, "lengths": np.asarray(frames, np.int32)}


def decoder_inputs(tokens: Any, memory: Memory) -> dict[str, Any]:
    """What the decoder's program reads for tokens ``[rows, steps]``."""
    tokens = np.asarray(tokens, np.int32)
    return {"tokens": tokens, "memory": memory.values, "keys": memory.keys, "lengths": memory.lengths}


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


@torch.no_grad()
def cross_entropy_sum(recognizer: Recognizer, batch: Batch) -> tuple[float, int]:
    """(nats, units) of a batch with teacher forcing, ends included; nothing is smoothed."""
    memory = recognizer.encode(batch.features, batch.frames)
    logits = torch.as_tensor(recognizer.decode(batch.decoder_inputs, memory, None)[0])
    targets = batch.decoder_targets.flatten()
    nats = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), targets, ignore_index=IGNORED_TARGET, reduction="sum"
    )
    return float(nats.double()), int((targets != IGNORED_TARGET).sum())


def program_step(program: Program, run: Any) -> Step:
    """A language model's program, of integers or of float, as the step of a search, for shallow fusion.

    run: what executes it, ``run.run_all(inputs, state)``; an integer program itself is the reference interpreter.
    """
    scales = [1.0] * len(program.outputs) if program.kind == "float" else program.output_scales

    def step(tokens: np.ndarray, state: State) -> tuple[Any, State]:
        outputs, state = run.run_all(np.asarray(tokens, np.int32)[:, None], state)
        # In float64, whatever runs it: equal scores from equal integers.
        return scores(outputs, scales, torch.float64)[:, 0].numpy(), state

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
