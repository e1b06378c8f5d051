"""The stage `evaluate`: the program's perplexity, and whether every executor gives the same integers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import irnn
from irnn.metrics import stream_chunks, stream_cross_entropy
from pipelines.deploy import runner_of
from pipelines.export import PROGRAM
from pipelines.stages import Result, Stage
from pipelines.training import Training

_CHUNK = 256

# (ids [1, time] int64, state or None) -> (int32 logits [1, time, vocabulary], state)
IntegerRun = Callable[[np.ndarray, Any], tuple[Any, dict[str, Any]]]


@dataclass(frozen=True)
class Evaluation:
    """Compares QAT, interpreter and TVM on the first `tokens` of both splits, and scores the program on all of them.

    artefact: the stage that compiled the program, or None where TVM is not installed; then the interpreter scores.
    """

    training: Training
    qat: Stage
    program: Stage
    artefact: Stage | None
    tokens: int

    def __call__(self, stage: Stage) -> Result:
        corpus = self.training.corpus
        program = irnn.load(self.program.folder / PROGRAM)
        model = self.training.trained_model(self.qat)
        parts = [corpus.valid[: self.tokens], corpus.test[: self.tokens]]
        eos = corpus.vocabulary.eos

        def qat_run(ids: np.ndarray, state: Any) -> tuple[Any, dict[str, Any]]:
            return model.frozen().run(torch.from_numpy(ids), state)

        mismatches = {"interpreter_vs_qat": mismatch(program.run, qat_run, parts, eos), "tvm_vs_interpreter": None}
        run: IntegerRun = program.run
        if self.artefact is not None:
            run = runner_of(self.artefact).run
            mismatches["tvm_vs_interpreter"] = mismatch(run, program.run, parts, eos)
        metrics: dict[str, Any] = {"mismatches": mismatches}
        for split in ("valid", "test"):
            nats, count = stream_cross_entropy(run, getattr(corpus, split), eos, scale=program.logits_scale)
            metrics[f"{split}_perplexity"] = math.exp(nats / count)
        return Result(metrics)


def mismatch(first: IntegerRun, second: IntegerRun, streams: Iterable[np.ndarray], eos: int) -> dict[str, int]:
    """Integers that differ between two executors, over all logits and the states after each chunk.

    Each carries its own state along, so a difference that only a state holds comes to light later at the latest.
    """
    count = compared = 0
    for stream in streams:
        states: list[Any] = [None, None]
        for ids, _ in stream_chunks(stream, eos, _CHUNK):
            pair = []
            for index, run in enumerate((first, second)):
                logits, states[index] = run(ids, states[index])
                pair.append([np.asarray(logits), *(np.asarray(states[index][name]) for name in sorted(states[index]))])
            for a, b in zip(*pair, strict=True):
                count += int(np.count_nonzero(a != b))
                compared += a.size
    return {"count": count, "compared": compared}
