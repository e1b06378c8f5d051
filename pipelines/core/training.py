"""One training stage: build the model, start from the previous stage's weights, fit, evaluate, hand on the weights."""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.accelerators import CUDAAccelerator, MPSAccelerator
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

from irnn import qat
from irnn.errors import IrnnError, arguments_of
from irnn.models.base import RecurrentModel
from irnn.wiring.compiled_steps import CompiledSteps
from pipelines.config import COMPENSATED, RunConfig
from pipelines.core.checkpoints import RESUME_FILE, AtomicCheckpointIO, load_weights, save_weights
from pipelines.core.problem import Problem, StageTask, TaskSettings, derived_seed
from pipelines.core.stages import Result, Stage
from pipelines.core.team import Alone, Announcement, Follower, Leader
from pipelines.recipe import QAT_STAGES
from pipelines.watch.history import History
from pipelines.watch.progress import StageProgressBar

# Of the epochs of a stage whose steps are measured: it is ended from outside.
_ENDLESS = 10_000


def need_accelerator(name: str, *, cuda_graphs: bool = False, compile: bool = False) -> None:
    """An `IrnnError` where `trainer.accelerator=name`, or graphs of CUDA, ask for a GPU and PyTorch has none, or where
    what is to be compiled for this machine's processor has no compiler."""
    if compile and (name == "cpu" or not torch.cuda.is_available()):
        compiler = os.environ.get("CXX", "g++")  # PyTorch's own choice
        if shutil.which(compiler) is None:
            raise IrnnError(
                f"trainer.compile=true: there is no {compiler}, by which PyTorch compiles for a CPU; install a C++ "
                "compiler, name one in the variable CXX, or set it to false"
            )
    if cuda_graphs and not CUDAAccelerator.is_available():
        raise IrnnError("trainer.cuda_graphs=true: PyTorch finds no GPU of CUDA; set it to false")
    if name != "gpu" or CUDAAccelerator.is_available() or MPSAccelerator.is_available():
        return
    built_for_gpus = torch.version.cuda or torch.version.hip
    reason = "finds no GPU on this machine" if built_for_gpus else "is built for CPUs alone"
    raise IrnnError(
        f"trainer.accelerator=gpu: PyTorch {torch.__version__} {reason}; set trainer.accelerator=cpu (or auto), or "
        + ("mend the GPU's driver (nvidia-smi)" if built_for_gpus else "install its CUDA build (pytorch.org)")
    )


@dataclass(frozen=True)
class Training:
    """Runs the training stages of one configuration on one problem; calling it runs a stage.

    history: where curves go while a stage runs.  team: this process among those that train together; one that leads
    runs stages, one that follows trains what it is told of.
    """

    config: RunConfig
    problem: Problem[Any, Any]
    history: History = field(default_factory=History)
    team: Alone | Leader | Follower = field(default_factory=Alone)

    def __call__(self, stage: Stage) -> Result:
        task = self._task(stage, self._starting_model(stage))
        self._fit(task, stage, Announcement(stage.digest, resume=(stage.folder / RESUME_FILE).is_file()))
        model = task.trained()
        model.refresh()  # the tables follow the last epoch's ranges, also where an interrupted run was evaluated
        score = self.problem.score(model, stage.folder)
        details = {
            "epochs": len(task.settings.rates),
            "seed": self.config.seed,
            "training_seconds": round(task.seconds, 2),
            "curve": task.curve,
        }
        files = [save_weights(model, stage.folder), *score.files]
        return Result(score.metrics, files, details, scratch=[RESUME_FILE])

    def follow(self, stage: Stage, announcement: Announcement) -> None:
        """Train a stage together with its leader, whose ranges and weights are taken over."""
        self._fit(self._task(stage, self._starting_model(stage)), stage, announcement)

    def keep_stepping(self, stage: Stage, callback: Callback) -> None:
        """Train a new network as `stage` does, calibrated where it is one of the quantized, again and again, without
        validation and without leaving anything; `callback` sees the steps, which are to be measured."""
        torch.manual_seed(derived_seed(self.config.seed, "initial weights", 0))
        model = self._prepare(self.problem.build(), stage.name)
        if stage.name in QAT_STAGES:
            qat.calibrate(model, self.problem.calibration())
        task = self._task(stage, model.train(), repeated=_ENDLESS)
        self._fit_by(task, self._trainer(len(task.settings.rates), [callback], limit_val_batches=0))

    def _task(self, stage: Stage, model: RecurrentModel, repeated: int = 1) -> StageTask:
        """repeated: how often the stage's epochs come."""
        recipe = self.config.recipe
        settings = TaskSettings(
            stage=stage.name,
            identity=f"{stage.name}-{stage.digest}",
            seed=self.config.seed,
            rates=recipe.rates(stage.name, self.config.trained_stages) * repeated,
            warmups=recipe.warmups(stage.name, self.config.trained_stages) * repeated,
            average=recipe.average(stage.name),
            optimizer=recipe.optimizer,
            bf16=self.config.trainer.precision == "bf16",
            graphs=self.config.trainer.cuda_graphs,
            show=partial(self.history.show, stage.name),
        )
        return self.problem.task(model, settings)

    def post_training(self, stage: Stage) -> Result:
        """The stage `all` without training: calibrated, with the weights of the stage before."""
        assert stage.previous is not None  # the float stage, or one that has trained quantized weights
        model = self._prepare(self.trained_model(stage.previous), stage.name)
        qat.calibrate(model, self.problem.calibration(), quantized_weights=stage.previous.name != "float")
        if self.config.post_training == COMPENSATED:
            qat.compensate(model, self.problem.calibration())
        model.eval()
        score = self.problem.score(model, stage.folder)
        details = {"epochs": 0, "seed": self.config.seed, "training_seconds": 0.0}
        return Result(score.metrics, [save_weights(model, stage.folder), *score.files], details)

    def trained_model(self, stage: Stage) -> RecurrentModel:
        """The model that a finished stage has left, in that stage's mode of computation."""
        model = self._prepare(self.problem.build(), stage.name)
        model.load_state_dict(load_weights(stage.folder))
        return model.eval()

    def _starting_model(self, stage: Stage) -> RecurrentModel:
        """The stage's model with the weights that it starts from."""
        if stage.previous is None:
            torch.manual_seed(derived_seed(self.config.seed, "initial weights", 0))
            return self.problem.build()
        model = self._prepare(self.trained_model(stage.previous), stage.name)
        if stage.previous.name == "float" and stage.name in QAT_STAGES and self.team.leads:
            qat.calibrate(model, self.problem.calibration())
        return model.train()

    def _prepare(self, model: RecurrentModel, stage: str) -> RecurrentModel:
        quant, pwl = self.config.quant, self.config.pwl
        with (
            arguments_of(type(model.config), "model."),
            arguments_of(type(pwl), "pwl."),
            arguments_of(type(quant), "quant."),
        ):
            return qat.prepare(model, quant, pwl, stage if stage in QAT_STAGES else "float")

    def _fit(self, task: StageTask, stage: Stage, announcement: Announcement) -> None:
        with self.team.training(announcement) as processes:
            self._fit_here(task, stage, announcement.resume, processes)

    def _fit_here(self, task: StageTask, stage: Stage, resume: bool, processes: dict[str, Any]) -> None:
        """processes: what Lightning needs to know of them."""
        settings = self.config.trainer
        checkpoint = stage.folder / RESUME_FILE
        callbacks: list[Callback] = [
            ModelCheckpoint(
                dirpath=stage.folder,
                filename=checkpoint.stem,
                every_n_epochs=1,
                save_on_train_epoch_end=True,
                enable_version_counter=False,
            )
        ]
        progress = settings.progress and self.team.leads
        if progress:
            callbacks.append(StageProgressBar(stage.name))
        trainer = self._trainer(
            len(task.settings.rates),
            callbacks,
            **processes,
            plugins=[AtomicCheckpointIO()],
            enable_progress_bar=progress,
            default_root_dir=stage.folder,
        )
        self._fit_by(task, trainer, checkpoint if resume else None)

    def _trainer(self, epochs: int, callbacks: list[Callback], **more: Any) -> pl.Trainer:
        quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_checkpointing": bool(more.get("plugins"))}
        return pl.Trainer(
            accelerator=self.config.trainer.accelerator,
            use_distributed_sampler=False,  # a problem's batches know of parts
            max_epochs=epochs,
            gradient_clip_val=self.config.recipe.clip,
            accumulate_grad_batches=self.config.recipe.accumulate,
            callbacks=callbacks,
            logger=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,  # an epoch's batches may be drawn anew
            **quiet | more,
        )

    def _fit_by(self, task: StageTask, trainer: pl.Trainer, checkpoint: Path | None = None) -> None:
        """checkpoint: what to go on from."""
        _quiet_lightning()
        task.model.compiled_steps = CompiledSteps() if self.config.trainer.compile else None
        try:
            trainer.fit(task, ckpt_path=checkpoint, weights_only=True)
        except SystemExit:  # what Lightning makes of Ctrl-C and of a termination signal
            raise KeyboardInterrupt from None
        finally:
            task.model.compiled_steps = None  # what scores has other batches, once each


def _quiet_lightning() -> None:
    """Leave out Lightning's advice about data workers and devices; its warnings about the run itself stay."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (".*does not have many workers.*", ".*Checkpoint directory .* exists.*", ".*LeafSpec.*"):
        warnings.filterwarnings("ignore", message)
