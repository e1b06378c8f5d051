"""Classifiers: cross-entropy and accuracy of a sequence's label."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from irnn.data.labelled.batches import LabelledBatch, LabelledBatches
from irnn.data.labelled.corpus import load_labelled
from irnn.errors import IrnnError, arguments_of
from irnn.metrics import cross_entropy_sum
from irnn.models.classifier import Classifier, ClassifierConfig, program_inputs
from irnn.program import Program, equality
from pipelines.config import RunConfig
from pipelines.core.manifest import write_json
from pipelines.core.matrix import Matrix
from pipelines.core.orthogonality import measured
from pipelines.core.problem import Score, TaskSettings, derived_seed
from pipelines.problems.classifier.classifier_task import ClassifierTask
from pipelines.sections import architecture_inputs, read_section
from pipelines.watch.console import show_left_out

LABELS_FILE = "labels.json"
_SPLITS = ("dev", "test")
# Batches of the training set that give the quantization sites their first ranges.
_CALIBRATION_BATCHES = 20
# Of the timing: both libraries take turns, a second each in all.
_ROUNDS = 20
_SECONDS = 1.0

# (features [batch, frames, size], frames [batch]) -> real logits [batch, classes]
Logits = Callable[[Tensor, Tensor], Any]


class ClassifierProblem:
    """A corpus of labelled sequences and a classifier; see `pipelines.core.problem.Problem`."""

    def __init__(self, config: RunConfig) -> None:
        self.seed, self.batch_size = config.seed, config.evaluation.batch_size
        self.compared = config.evaluation.interpreter_sequences
        with arguments_of(type(config.data), "data."):
            self.corpus = load_labelled(config.data)
        show_left_out(self.corpus.left_out, "recordings")
        for key in ("classes", "feature_size"):
            if key in config.model:
                raise IrnnError(f"model.{key} follows from the data; leave it out")
        sizes = {"classes": len(self.corpus.labels), "feature_size": self.corpus.feature_size}
        self.architecture = read_section(ClassifierConfig, {**config.model, **sizes}, "model.")
        self.origin = {"model": architecture_inputs(self.architecture), "data": self.corpus.fingerprint}
        self.evaluation: dict[str, Any] = {} if self.compared is None else {"compared": self.compared}

    def batching(self, stage: str) -> dict[str, Any]:
        """See `Problem`."""
        return {"batch_size": self.corpus.config.batch_size, **self.corpus.augmentation}

    def build(self) -> Classifier:
        """See `Problem`."""
        return Classifier(self.architecture)

    def calibration(self) -> Iterable[LabelledBatch]:
        """See `Problem`."""
        seed = derived_seed(self.seed, "calibration", 0)
        return islice(LabelledBatches(self.corpus, "train", self.corpus.config.batch_size, seed), _CALIBRATION_BATCHES)

    def task(self, model: Classifier, settings: TaskSettings) -> ClassifierTask:
        """See `Problem`."""
        return ClassifierTask(model, settings, self.corpus, derived_seed(self.seed, f"{settings.stage} batches", 0))

    @torch.no_grad()
    def score(self, model: Classifier, folder: Path) -> Score:
        """Cross-entropy of dev, accuracy of dev and test."""
        return Score(self._figures(model))

    def metadata(self) -> dict[str, Any]:
        """How features are made and normalized."""
        return self.corpus.metadata()

    def save_vocabulary(self, folder: Path) -> None:
        """The names of the logits, in their order."""
        write_json(folder / LABELS_FILE, list(self.corpus.labels))

    def bench(self, program: Program, artefacts: Mapping[str, Path]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Time of a sequence through both libraries, one a call, one thread: a test sequence of median length."""
        from deploy_tvm.bench.measure import Case, Settings, measure

        split = self.corpus.splits["test"]
        middle = int(np.argsort(split.frames, kind="stable")[len(split) // 2])
        x = self.corpus.normalization.apply(split.features(middle))[None]
        inputs = program_inputs(program, x, [x.shape[1]])
        case = Case(program, None, dict(artefacts), inputs, {**inputs, "features": x})
        measured = measure(case, Settings(rounds=_ROUNDS, seconds=_SECONDS), lambda text: None)
        details = {name: measured[name] for name in ("spread", "machine", "measured")}
        return {"us_per_sequence": measured["us"]}, {"frames": x.shape[1], **details}

    def evaluate(self, program: Program, model: Classifier, runner: Any | None, baseline: Path, folder: Path) -> Score:
        """QAT, interpreter and TVM are compared on the first sequences of dev and test; all are scored."""
        executors = {"interpreter_vs_qat": model.frozen(), "tvm_vs_interpreter": runner}
        mismatches = {
            name: None if executor is None else self._mismatch(program, executor)
            for name, executor in executors.items()
        }
        executor = program if runner is None else runner

        def logits(features: Tensor, frames: Tensor) -> Any:
            (found,), _ = executor.run_all(program_inputs(program, features, frames))
            return torch.as_tensor(found) * program.logits_scale

        files = (self._confusion(logits).save(folder, "confusion"),)
        metrics = {"mismatches": mismatches, **self._figures(logits)}
        left_out = {name: len(unused) for name, unused in self.corpus.left_out.items() if unused}
        if left_out:
            metrics["left_out"] = left_out
        orthogonal = measured(model, folder)
        return Score(metrics | orthogonal.metrics, (*files, *orthogonal.files))

    def _mismatch(self, program: Program, executor: Any) -> dict[str, int]:
        """Integers of logits and states that differ from the interpreter's."""
        found = equality.Comparison()
        for batch in self._compared_batches():
            inputs = program_inputs(program, batch.features, batch.frames)
            ours, theirs = (equality.named(program, *one.run_all(inputs)) for one in (executor, program))
            found += equality.compare("the executor", ours, theirs)
        return found.figures()

    def _confusion(self, logits: Logits) -> Matrix:
        """Which label the sequences of the test set are given, as shares of those that have the row's label."""
        labels = self.corpus.labels
        counts = np.zeros((len(labels), len(labels)))
        for batch in self._batches("test"):
            found = logits(batch.features, batch.frames).argmax(-1)
            np.add.at(counts, (batch.labels.numpy(), found.numpy()), 1)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        title = "Confusion on the test set: the program's label by the true one."
        return Matrix(title, shares.tolist(), ("true label", "label given"), list(labels), list(labels))

    def _batches(self, *splits: str) -> Iterable[LabelledBatch]:
        return (batch for split in splits for batch in LabelledBatches(self.corpus, split, self.batch_size))

    def _compared_batches(self) -> Iterable[LabelledBatch]:
        """The sequences of dev and test on which executors are compared."""
        for split in _SPLITS:
            left = len(self.corpus.splits[split]) if self.compared is None else self.compared
            for batch in self._batches(split):
                yield LabelledBatch(*(part[:left] for part in batch))
                left -= len(batch.labels)
                if left <= 0:
                    break

    def _figures(self, logits: Logits) -> dict[str, float]:
        figures = {}
        for split in _SPLITS:
            nats = right = 0.0
            for batch in self._batches(split):
                found = logits(batch.features, batch.frames)
                nats += cross_entropy_sum(found, batch.labels.numpy())
                right += int((found.argmax(-1) == batch.labels).sum())
            count = len(self.corpus.splits[split])
            figures[f"{split}_cross_entropy"], figures[f"{split}_accuracy"] = nats / count, right / count
        return figures
