"""The progress bar of a training stage."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar

_Metrics = dict[str, int | str | float | dict[str, float]]  # Lightning's


class StageProgressBar(RichProgressBar):
    """Lightning's Rich bar, named after the stage and counting epochs from 1; one line per finished epoch stays."""

    def __init__(self, stage: str) -> None:
        super().__init__(leave=True)
        self._stage_name = stage

    def _get_train_description(self, current_epoch: int) -> str:
        return f"{self._stage_name} {current_epoch + 1}/{self.trainer.max_epochs}"

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> _Metrics:
        # Short, so that the bar stays on one line of 80 columns; the loggers' `v_num` says nothing about the training.
        metrics = super().get_metrics(trainer, pl_module)
        figure = getattr(pl_module, "figure", None)  # a stage's task names what it validates
        shown = {"loss": metrics.get("loss"), "valid": None if figure is None else metrics.get(figure)}
        return {name: f"{value:.2f}" for name, value in shown.items() if isinstance(value, int | float)}
