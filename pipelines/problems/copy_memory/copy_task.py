"""Training of the copy task: sequences drawn anew for every epoch, the state starting at zero in each."""

from __future__ import annotations

from torch import Tensor

from irnn.data.copy_memory import CopyBatch, CopyBatches, CopyConfig, evaluation_batches
from irnn.models.language_model import LanguageModel
from pipelines.core.problem import StageTask, TaskSettings


class CopyTask(StageTask):
    """An epoch's sequences depend on seed, stage and epoch alone."""

    model: LanguageModel

    def __init__(self, model: LanguageModel, settings: TaskSettings, data: CopyConfig, seed: int) -> None:
        super().__init__(model, settings)
        self._data, self._seed = data, seed
        self._validated: list[tuple[float, int]] = []

    def train_dataloader(self) -> CopyBatches:
        data = self._data
        self._train = CopyBatches(data, data.train_sequences, data.batch_size, self._seed, self.current_epoch)
        self._train.part = self.part
        return self._train

    def val_dataloader(self) -> CopyBatches:
        self._dev = evaluation_batches(self._data, "dev", self._data.batch_size)
        self._dev.part = self.part
        return self._dev

    def training_step(self, batch: CopyBatch, index: int) -> Tensor:
        (loss,) = self.computed(*batch)
        return self.of_all(loss, len(batch.ids) if self._train.owns(index) else 0)

    def compute(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """Of a batch's tensors."""
        ids, targets = batch
        loss, _ = self.model.loss(ids, targets)
        return (loss,)

    def on_validation_epoch_start(self) -> None:
        self._validated = []

    def validation_step(self, batch: CopyBatch, index: int) -> None:
        loss, _ = self.model.loss(batch.ids, batch.targets)
        if self._dev.owns(index):
            self._validated.append((float(loss), len(batch.ids)))

    def on_validation_epoch_end(self) -> None:
        sums = (sum(loss * count for loss, count in self._validated), sum(count for _, count in self._validated))
        nats, sequences = self.summed(*sums)
        self.log_validation(nats / sequences, "dev_cross_entropy", nats / sequences)
