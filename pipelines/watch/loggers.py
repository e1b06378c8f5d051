"""Where the curves of a training stage go."""

from __future__ import annotations

import os
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from irnn.errors import IrnnError
from pipelines.watch.settings import LoggerConfig


def open_loggers(config: LoggerConfig, folder: Path, run: str) -> list[Logger]:
    """The loggers of one stage, all of which write into the stage's folder; Weights & Biases groups them by `run`."""
    loggers: list[Logger] = []
    if config.csv:
        loggers.append(CSVLogger(folder, name="csv"))
    if config.tensorboard:
        loggers.append(TensorBoardLogger(folder, name="tensorboard"))
    if config.wandb is not None:
        os.environ.setdefault("WANDB_SILENT", "true")
        offline = config.wandb == "offline"
        logger = WandbLogger(project="irnn", group=run, name=folder.name, save_dir=folder, offline=offline)
        _begin(logger, config.wandb)
        loggers.append(logger)
    return loggers


def _begin(logger: WandbLogger, mode: str) -> None:
    """Begin the Weights & Biases run, which asks who it is for; where that fails, an `IrnnError` before training."""
    import wandb

    try:
        _ = logger.experiment
    except wandb.Error as error:
        reason = str(error).splitlines()[0]
        raise IrnnError(
            f"logger.wandb={mode} cannot begin ({reason}); log in with `wandb login`, or set logger.wandb=offline"
        ) from None


def close_loggers(config: LoggerConfig) -> None:
    """End the stage's Weights & Biases run: the next stage would go on in it."""
    if config.wandb is not None:
        import wandb

        wandb.finish()
