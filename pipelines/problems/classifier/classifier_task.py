"""Training of a classifier: batches drawn anew for every epoch."""

from __future__ import annotations

import torch
from torch import Tensor

from irnn.data.labelled.base import LabelledCorpus
from irnn.data.labelled.batches import LabelledBatch, LabelledBatches
from irnn.models.classifier import Classifier
from pipelines.core.problem import StageTask, TaskSettings


class ClassifierTask(StageTask):
    """The epoch's batches and their augmentation depend on seed, stage and epoch alone."""

    model: Classifier

    def __init__(self, model: Classifier, settings: TaskSettings, corpus: LabelledCorpus, seed: int) -> None:
        super().__init__(model, settings)
        self._corpus, self._seed = corpus, seed
        self._validated: list[tuple[float, int]] = []

    def train_dataloader(self) -> LabelledBatches:
        rows = self._corpus.config.batch_size
        self._train = LabelledBatches(self._corpus, "train", rows, self._seed, self.current_epoch, self.part)
        return self._train

    def val_dataloader(self) -> LabelledBatches:
        self._dev = LabelledBatches(self._corpus, "dev", self._corpus.config.batch_size, part=self.part)
        return self._dev

    def training_step(self, batch: LabelledBatch, index: int) -> Tensor:
        (loss,) = self.computed(*batch)
        return self.of_all(loss, len(batch.labels) if self._train.owns(index) else 0)

    def compute(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """Of a batch's tensors."""
        with torch.autocast(batch[0].device.type, torch.bfloat16, enabled=self.settings.bf16):
            return (self.model.loss(LabelledBatch(*batch)),)

    def on_validation_epoch_start(self) -> None:
        self._validated = []

    def validation_step(self, batch: LabelledBatch, index: int) -> None:
        if self._dev.owns(index):
            self._validated.append((float(self.model.loss(batch)), len(batch.labels)))

    def on_validation_epoch_end(self) -> None:
        sums = (sum(loss * count for loss, count in self._validated), sum(count for _, count in self._validated))
        nats, sequences = self.summed(*sums)
        self.log_validation(nats / sequences, "dev_cross_entropy", nats / sequences)
