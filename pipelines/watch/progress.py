"""The progress bar of a training stage."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar


class StageProgressBar(RichProgressBar):
    """Lightning's Rich bar, named after the stage and counting epochs from 1; one line per finished epoch stays."""

    def __init__(self, stage: str) -> None:
        super().__init__(leave=True)
        self._stage_name = stage

    def _get_train_description(self, current_epoch: int) -> str:
        return f"{self._stage_name} {current_epoch + 1}/{self.trainer.max_epochs}"

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, int | str | float]:
        # Short, so that the bar stays on one line of 80 columns; the loggers' `v_num` says nothing about the training.
        metrics = super().get_metrics(trainer, pl_module)
        shown = {"loss": metrics.get("loss"), "valid": metrics.get(pl_module.figure)}
        return {name: f"{float(value):.2f}" for name, value in shown.items() if value is not None}
