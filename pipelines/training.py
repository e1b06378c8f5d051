"""One training stage: build the model, start from the previous stage's weights, fit, evaluate, hand on the weights."""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from torch import nn

from irnn import qat
from irnn.data import Corpus, TextBatches
from irnn.metrics import stream_cross_entropy
from irnn.models.language_model import LanguageModel, LanguageModelConfig
from pipelines.checkpoints import RESUME_FILE, AtomicCheckpointIO, load_weights, save_weights
from pipelines.config import QAT_STAGES, RunConfig
from pipelines.language_model_task import LanguageModelTask, derived_seed
from pipelines.loggers import close_loggers, open_loggers
from pipelines.progress import StageProgressBar
from pipelines.stages import Result, Stage

# Rows of the validation stream during training: a quick estimate; the reported figures use one row.
_VALIDATION_ROWS = 10


# Batches of the training stream that give the quantization sites their first ranges.
_CALIBRATION_BATCHES = 20


@dataclass(frozen=True)
class Training:
    """Runs the training stages of one configuration on one corpus; calling it runs a stage."""

    config: RunConfig
    corpus: Corpus
    architecture: LanguageModelConfig

    def __call__(self, stage: Stage) -> Result:
        rates = self.config.stages.rates(stage.name)
        task = LanguageModelTask(
            self._starting_model(stage),
            stage=stage.name,
            identity=f"{stage.name}-{stage.digest}",
            seed=self.config.seed,
            rates=rates,
            optimizer=self.config.trainer.optimizer,
            bf16=self.config.trainer.precision == "bf16",
        )
        self._fit(task, stage.name, stage.folder, epochs=len(rates))
        task.model.eval()
        task.model.refresh()  # the tables follow the last epoch's ranges, also where an interrupted run was evaluated
        eos = self.corpus.vocabulary.eos
        metrics = {
            "valid_perplexity": perplexity(task.model, self.corpus.valid, eos),
            "test_perplexity": perplexity(task.model, self.corpus.test, eos),
        }
        details = {"epochs": len(rates), "seed": self.config.seed, "training_seconds": round(task.seconds, 2)}
        return Result(metrics, [save_weights(task.model, stage.folder)], details, scratch=[RESUME_FILE])

    def trained_model(self, stage: Stage) -> LanguageModel:
        """The model that a finished stage has left, in that stage's mode of computation."""
        model = self._prepare(LanguageModel(self.architecture), stage.name)
        model.load_state_dict(load_weights(stage.folder))
        return model.eval()

    def _starting_model(self, stage: Stage) -> LanguageModel:
        """The stage's model with the weights that it starts from."""
        if stage.previous is None:
            torch.manual_seed(derived_seed(self.config.seed, "initial weights", 0))
            return LanguageModel(self.architecture)
        model = self._prepare(self.trained_model(stage.previous), stage.name)
        if stage.previous.name == "float" and stage.name in QAT_STAGES:
            batches = TextBatches(
                self.corpus.train, self.corpus.vocabulary.eos, self.config.data.batch_size, self.config.data.steps
            )
            qat.calibrate(model, (ids for ids, _ in islice(batches, _CALIBRATION_BATCHES)))
        return model.train()

    def _prepare(self, model: LanguageModel, stage: str) -> LanguageModel:
        return qat.prepare(model, self.config.quant, self.config.pwl, stage if stage in QAT_STAGES else "float")

    def _fit(self, task: LanguageModelTask, stage: str, folder: Path, epochs: int) -> None:
        settings, data = self.config.trainer, self.config.data
        resume = folder / RESUME_FILE
        _quiet_lightning()
        callbacks: list[Callback] = [
            ModelCheckpoint(
                dirpath=folder,
                filename=resume.stem,
                every_n_epochs=1,
                save_on_train_epoch_end=True,
                enable_version_counter=False,
            )
        ]
        if settings.progress:
            callbacks.append(StageProgressBar(stage))
        trainer = pl.Trainer(
            accelerator=settings.accelerator,
            devices=1,
            max_epochs=epochs,
            gradient_clip_val=settings.clip,
            callbacks=callbacks,
            logger=open_loggers(self.config.logger, folder, self.config.name),
            plugins=[AtomicCheckpointIO()],
            enable_progress_bar=settings.progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,  # whole epochs are logged: this only keeps Lightning from asking for it
            default_root_dir=folder,
        )
        eos = self.corpus.vocabulary.eos
        try:
            trainer.fit(
                task,
                TextBatches(self.corpus.train, eos, data.batch_size, data.steps),
                TextBatches(self.corpus.valid, eos, min(_VALIDATION_ROWS, len(self.corpus.valid)), data.steps),
                ckpt_path=resume if resume.is_file() else None,
                weights_only=True,
            )
        except SystemExit:  # what Lightning makes of Ctrl-C and of a termination signal
            raise KeyboardInterrupt from None
        finally:
            close_loggers(self.config.logger)


@torch.no_grad()
def perplexity(model: nn.Module, tokens: np.ndarray, eos: int) -> float:
    """exp(mean cross-entropy) over every token of the stream, at batch 1 with carried state."""
    nats, count = stream_cross_entropy(lambda ids, state: model(torch.from_numpy(ids), state), tokens, eos)
    return math.exp(nats / count)


def _quiet_lightning() -> None:
    """Leave out Lightning's advice about data workers and devices; its warnings about the run itself stay."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (".*does not have many workers.*", ".*Checkpoint directory .* exists.*", ".*LeafSpec.*"):
        warnings.filterwarnings("ignore", message)
