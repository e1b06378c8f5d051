"""Training of a language model: truncated backpropagation with carried state."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from irnn.data import Corpus, TextBatches, TextConfig
from irnn.errors import IrnnError
from irnn.models.language_model import LanguageModel
from pipelines.core.problem import StageTask, TaskSettings

Batch = tuple[Tensor, Tensor]

# Rows of the validation stream during training, at least: a quick estimate; a stage's score is `evaluation.rows`'s.
_VALIDATION_ROWS = 10


class LanguageModelTask(StageTask):
    """The state None is the one before the first token."""

    model: LanguageModel

    def __init__(self, model: LanguageModel, settings: TaskSettings, corpus: Corpus, data: TextConfig) -> None:
        super().__init__(model, settings)
        self._corpus = corpus
        self._data = data
        self._carried: dict[str, Tensor] | None = None
        self._validation_state: dict[str, Tensor] | None = None
        self._validated: list[tuple[float, int]] = []

    def train_dataloader(self) -> TextBatches:
        rows, steps = self._data.batch_size, self._data.steps
        if self.part.of > rows:
            raise IrnnError(f"data.batch_size={rows}: each of the {self.part.of} processes needs a row; raise it")
        return TextBatches(self._corpus.train, self._corpus.vocabulary.eos, rows, steps, self.part)

    def val_dataloader(self) -> TextBatches:
        rows = min(max(_VALIDATION_ROWS, self._data.batch_size), len(self._corpus.valid))
        return TextBatches(self._corpus.valid, self._corpus.vocabulary.eos, rows, self._data.steps, self.part)

    def on_train_epoch_start(self) -> None:
        self._carried = None
        super().on_train_epoch_start()

    def training_step(self, batch: Batch, index: int) -> Tensor:
        ids, targets = batch
        state = self.model.initial_state(len(ids)) if self._carried is None else self._carried
        loss, *values = self.computed(ids, targets, *state.values())
        self._carried = dict(zip(state, values, strict=True))
        return self.of_all(loss, targets.numel())

    def compute(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """Of ids, targets and the states, in the order of the network's; it hands on the states."""
        ids, targets, *values = batch
        names = [spec.name for spec in self.model.state_specs()]
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=self.settings.bf16):
            loss, state = self.model.loss(ids, targets, dict(zip(names, values, strict=True)))
        return loss, *(state[name] for name in names)

    def on_validation_epoch_start(self) -> None:
        self._validation_state = None
        self._validated = []

    def validation_step(self, batch: Batch, index: int) -> None:
        ids, targets = batch
        loss, self._validation_state = self.model.loss(ids, targets, self._validation_state)
        self._validated.append((float(loss), targets.numel()))

    def on_validation_epoch_end(self) -> None:
        sums = (sum(loss * count for loss, count in self._validated), sum(count for _, count in self._validated))
        nats, tokens = self.summed(*sums)
        loss = nats / tokens
        self.log_validation(loss, "valid_perplexity", math.exp(min(loss, 700)))
