"""Language models: perplexity of the next word, or of a recognizer's next unit, in running text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from irnn.data import TextBatches, load_corpus
from irnn.data.text.vocabulary import VOCABULARY_FILE
from irnn.errors import IrnnError, arguments_of
from irnn.metrics import Run, stream_chunks, stream_cross_entropy
from irnn.models.language_model import LanguageModel, LanguageModelConfig
from irnn.program import Program, equality
from pipelines.config import RunConfig
from pipelines.core.orthogonality import measured
from pipelines.core.problem import Score, TaskSettings
from pipelines.problems.language_model.language_model_task import LanguageModelTask
from pipelines.sections import architecture_inputs, read_section
from pipelines.watch.console import show_left_out

# Batches of the training stream that give the quantization sites their first ranges.
_CALIBRATION_BATCHES = 20
_CHUNK = 256
# Of the timing: both libraries take turns, a second each in all.
_ROUNDS = 20
_SECONDS = 1.0

# (ids [rows, time] int64, state or None) -> (the program's int32 outputs [rows, time, ...], state)
IntegerRun = Callable[[np.ndarray, Any], tuple[Sequence[Any], dict[str, Any]]]


class TextProblem:
    """A corpus of text and a language model; see `pipelines.core.problem.Problem`."""

    def __init__(self, config: RunConfig) -> None:
        self.data = config.data
        with arguments_of(type(config.data), "data."):
            self.corpus = load_corpus(config.data)
        show_left_out(self.corpus.left_out, "utterances")
        if "vocabulary_size" in config.model:
            raise IrnnError("model.vocabulary_size follows from the corpus; limit it with data.max_vocabulary")
        model = {**config.model, "vocabulary_size": len(self.corpus.vocabulary)}
        self.architecture = read_section(LanguageModelConfig, model, "model.")
        self.tokens = config.evaluation.interpreter_tokens
        self.origin = {"model": architecture_inputs(self.architecture), "data": self.corpus.fingerprint}
        self.rows = config.evaluation.rows
        on_gpu = config.trainer.accelerator != "cpu" and torch.cuda.is_available()
        self.device = torch.device("cuda" if on_gpu else "cpu")  # where a stage's model is scored
        self.evaluation = {"tokens": self.tokens} | ({"rows": self.rows} if self.rows > 1 else {})

    def batching(self, stage: str) -> dict[str, Any]:
        """See `Problem`."""
        scored = {"evaluated_rows": self.rows} if self.rows > 1 else {}  # what a stage scores itself by
        return {"batch_size": self.data.batch_size, "steps": self.data.steps} | scored

    def build(self) -> LanguageModel:
        """See `Problem`."""
        return LanguageModel(self.architecture)

    def batches(self) -> TextBatches:
        """The training text as it is trained on: (ids, targets) ``[batch, steps]``, piece by piece."""
        return TextBatches(self.corpus.train, self.corpus.vocabulary.eos, self.data.batch_size, self.data.steps)

    def calibration(self) -> Iterable[Tensor]:
        """See `Problem`."""
        return (ids for ids, _ in islice(self.batches(), _CALIBRATION_BATCHES))

    def task(self, model: LanguageModel, settings: TaskSettings) -> LanguageModelTask:
        """See `Problem`."""
        return LanguageModelTask(model, settings, self.corpus, self.data)

    @torch.no_grad()
    def score(self, model: LanguageModel, folder: Path) -> Score:
        """Perplexity of the streams with carried state: at batch 1 of every token, or by `evaluation.rows` parts."""
        model.to(self.device)

        def run(ids: np.ndarray, state: Any) -> tuple[list[Tensor], Any]:
            logits, state = model(torch.from_numpy(ids).to(self.device), state)
            return [logits], state

        scored = self._perplexities(run, [1.0])
        model.cpu()
        return Score(scored)

    def metadata(self) -> dict[str, Any]:
        """Which recognizers the model may help: those with the same units."""
        return {} if self.corpus.units is None else {"units": self.corpus.units.describe()}

    def save_vocabulary(self, folder: Path) -> None:
        """See `Problem`."""
        self.corpus.vocabulary.save(folder / VOCABULARY_FILE)

    def bench(self, program: Program, artefacts: Mapping[str, Path]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Time per token of streaming text through both libraries, one token a call, batch 1, one thread."""
        from deploy_tvm.bench.measure import Case, Settings, measure

        case = Case.random(program, None, dict(artefacts), {"time": 1}, "step")
        measured = measure(case, Settings(rounds=_ROUNDS, seconds=_SECONDS), lambda text: None)
        return {"us_per_token": measured["us"]}, {name: measured[name] for name in ("spread", "machine", "measured")}

    def evaluate(
        self, program: Program, model: LanguageModel, runner: Any | None, baseline: Path, folder: Path
    ) -> Score:
        """QAT, interpreter and TVM are compared on the first tokens of both splits; all tokens are scored."""
        parts = [self.corpus.valid[: self.tokens], self.corpus.test[: self.tokens]]
        eos = self.corpus.vocabulary.eos

        def qat_run(ids: np.ndarray, state: Any) -> tuple[Any, dict[str, Any]]:
            return model.frozen().run_all(torch.from_numpy(ids), state)

        mismatches = {"interpreter_vs_qat": mismatch(program.run_all, qat_run, parts, eos), "tvm_vs_interpreter": None}
        run: IntegerRun = program.run_all
        if runner is not None:
            run = runner.run_all
            mismatches["tvm_vs_interpreter"] = mismatch(run, program.run_all, parts, eos)
        perplexities = self._perplexities(run, program.output_scales)
        metrics: dict[str, Any] = {"mismatches": mismatches, **perplexities}
        left_out = {name: len(unused) for name, unused in self.corpus.left_out.items() if unused}
        if left_out:
            metrics["left_out"] = left_out
        if self.data.characters:
            for key, perplexity in perplexities.items():
                metrics[key.replace("perplexity", "bits_per_character")] = math.log2(perplexity)
        orthogonal = measured(model, folder)
        return Score(metrics | orthogonal.metrics, orthogonal.files)

    def _perplexities(self, run: Run, scales: Sequence[float]) -> dict[str, float]:
        metrics = {}
        for split in ("valid", "test"):
            tokens = getattr(self.corpus, split)
            if len(tokens) < self.rows:
                raise IrnnError(f"evaluation.rows={self.rows}: the {split} text has {len(tokens)} tokens; take fewer")
            nats, count = stream_cross_entropy(
                run, tokens, self.corpus.vocabulary.eos, scales=scales, rows=self.rows, chunk=max(512, 16 * self.rows)
            )
            metrics[f"{split}_perplexity"] = math.exp(nats / count)
        return metrics


def mismatch(first: IntegerRun, second: IntegerRun, streams: Iterable[np.ndarray], eos: int) -> dict[str, int]:
    """Integers that differ between two executors, over all outputs and the states after each chunk.

    Each carries its own state along, so a difference that only a state holds comes to light later at the latest.
    """
    found = equality.Comparison()
    for stream in streams:
        states: list[Any] = [None, None]
        for ids, _ in stream_chunks(stream, eos, _CHUNK):
            pair = []
            for index, run in enumerate((first, second)):
                outputs, states[index] = run(ids, states[index])
                pair.append({f"output {k}": y for k, y in enumerate(outputs)} | states[index])
            found += equality.compare("the executor", *pair)
    return found.figures()
