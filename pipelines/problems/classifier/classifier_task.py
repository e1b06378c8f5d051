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
        return LabelledBatches(self._corpus, "train", self._corpus.config.batch_size, self._seed, self.current_epoch)

    def val_dataloader(self) -> LabelledBatches:
        return LabelledBatches(self._corpus, "dev", self._corpus.config.batch_size)

    def training_step(self, batch: LabelledBatch, index: int) -> Tensor:
        with torch.autocast(batch.features.device.type, torch.bfloat16, enabled=self.settings.bf16):
            loss = self.model.loss(batch)
        self.log_training(loss, len(batch.labels))
        return loss

    def on_validation_epoch_start(self) -> None:
        self._validated = []

    def validation_step(self, batch: LabelledBatch, index: int) -> None:
        self._validated.append((float(self.model.loss(batch)), len(batch.labels)))

    def on_validation_epoch_end(self) -> None:
        nats = sum(loss * count for loss, count in self._validated) / sum(count for _, count in self._validated)
        self.log_validation(nats, "dev_cross_entropy", nats)
