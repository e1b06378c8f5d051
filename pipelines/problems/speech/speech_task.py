"""Training of a recognizer: batches of whole utterances, drawn anew for every epoch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from irnn.data.speech.corpus import SpeechCorpus
from irnn.data.speech.speech_batches import SpeechBatch, SpeechBatches
from irnn.errors import IrnnError
from irnn.models.speech import SpeechModel
from irnn.recognition.recognizer import ModelRecognizer, cross_entropy_sum
from pipelines.core.problem import StageTask, TaskSettings


class InOrder:
    """One epoch's batches one after the other; Lightning asks for a loader, and a loader draws random numbers."""

    def __init__(self, batches: SpeechBatches) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[SpeechBatch]:
        return (self._batches[k] for k in range(len(self._batches)))


class SpeechTask(StageTask):
    """The epoch's batches and their augmentation depend on seed, stage and epoch alone."""

    model: SpeechModel

    def __init__(self, model: SpeechModel, settings: TaskSettings, corpus: SpeechCorpus, seed: int) -> None:
        super().__init__(model, settings)
        if settings.graphs:
            raise IrnnError("trainer.cuda_graphs=true: no two batches of speech have one shape; set it to false")
        # A stage that starts from a trained model has nothing to begin with.
        curriculum = corpus.config.batches.curriculum if settings.stage == "float" else 0
        self._train = SpeechBatches(corpus, "train", seed, curriculum)
        self._dev = SpeechBatches(corpus, "dev")
        self._validated: list[tuple[float, int]] = []

    def train_dataloader(self) -> InOrder:
        self._train.set_epoch(self.current_epoch)
        self._train.part = self.part
        return InOrder(self._train)

    def val_dataloader(self) -> InOrder:
        self._dev.part = self.part
        return InOrder(self._dev)

    def training_step(self, batch: SpeechBatch, index: int) -> Tensor:
        with torch.autocast(batch.features.device.type, torch.bfloat16, enabled=self.settings.bf16):
            loss = self.model.loss(batch)
        return self.of_all(loss, int(batch.unit_counts.sum()) + len(batch.frames) if self._train.owns(index) else 0)

    def on_validation_epoch_start(self) -> None:
        self._validated = []

    def validation_step(self, batch: SpeechBatch, index: int) -> None:
        if self._dev.owns(index):
            self._validated.append(cross_entropy_sum(ModelRecognizer(self.model), batch))

    def on_validation_epoch_end(self) -> None:
        nats, units = self.summed(sum(nats for nats, _ in self._validated), sum(units for _, units in self._validated))
        self.log_validation(nats / units, "dev_cross_entropy", nats / units)
