"""What the common stages ask of a problem whose data have been read (`pipelines.problems.Kind.open`), and the part of
its training that all problems share."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytorch_lightning as pl
import torch
from torch.optim.swa_utils import AveragedModel

from irnn.batch_part import Part
from irnn.errors import IrnnError
from irnn.models.base import RecurrentModel
from irnn.nn.orthogonal.optimizer import ProjectedAdam, ProjectedSGD, projected_weights
from pipelines.core.graphs import GraphedSteps
from pipelines.core.shared_buffers import average_statistics, join_ranges

# Nats per word or unit; a uniform guess over a million words has 14.
_DIVERGED = 50.0


@dataclass(frozen=True)
class Score:
    """metrics: figures by name.  files: what was written into the stage's folder, as paths relative to it."""

    metrics: dict[str, Any]
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskSettings:
    """One training stage: its name, what identifies it, the run's seed, learning rates by epoch and the share of
    each epoch in which they rise from zero, the number of epochs at the end that are averaged, how to train (graphs: by
    recorded CUDA graphs), and who is shown the curve so far after every epoch."""

    stage: str
    identity: str
    seed: int
    rates: Sequence[float]
    warmups: Sequence[float]
    average: int
    optimizer: str
    bf16: bool
    graphs: bool
    show: Callable[[Sequence[Mapping[str, float]]], None]


# A problem's network, and what it is exported as: `Program` or `ProgramSet`.
Model = TypeVar("Model", bound=RecurrentModel)
Exported = TypeVar("Exported", contravariant=True)


class Problem(Protocol[Model, Exported]):
    """origin: network and data, as JSON values; part of the float stage's identity.
    evaluation: what decides on the evaluation of the program, as JSON values."""

    origin: dict[str, Any]
    evaluation: dict[str, Any]

    def batching(self, stage: str) -> dict[str, Any]:
        """What decides on the batches of a training stage, as JSON values."""

    def build(self) -> Model:
        """A network as its training starts, in stage "float"."""

    def calibration(self) -> Iterable[Any]:
        """Batches that give the quantization sites their first ranges."""

    def task(self, model: Model, settings: TaskSettings) -> StageTask:
        """What Lightning trains; it brings its data along."""

    def score(self, model: Model, folder: Path) -> Score:
        """How good a trained stage is."""

    def metadata(self) -> dict[str, Any]:
        """What a user of the program needs to know besides its vocabulary, as JSON values."""

    def save_vocabulary(self, folder: Path) -> None:
        """Write the vocabulary beside a program."""

    def evaluate(self, program: Exported, model: Model, runner: Any | None, baseline: Path, folder: Path) -> Score:
        """Score the program, with `mismatches` between QAT evaluation, interpreter and `runner` (compiled; or None).

        baseline: the folder of the stage `float_matched`, with the files of its score.
        """

    def bench(self, program: Exported, artefacts: Mapping[str, Path]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Time the compiled programs (by back end: `tvm_integer`, `tvm_float`); (figures, details for the manifest).

        The figures hold, under the kind's `timing`, one figure a back end.
        """


def derived_seed(seed: int, stage: str, epoch: int) -> int:
    """Seed of one epoch: depends on nothing that happened before, so a resumed run draws the same numbers."""
    return int.from_bytes(hashlib.sha256(f"{seed} {stage} {epoch}".encode()).digest()[:8], "big") >> 1


class StageTask(pl.LightningModule):
    """One training stage: optimizer, seeds, learning rates, what stands in a checkpoint.

    A subclass brings `training_step`, which returns what `of_all` makes of a loss, the data and the validation, which
    ends in `log_validation`.  Where the steps of its batches can be recorded as CUDA graphs, their loss is `computed`.
    Where several processes train together, each computes its `part` of every batch.
    """

    # A process may have nothing to validate.
    allow_zero_length_dataloader_with_multiple_devices = True

    def __init__(self, model: RecurrentModel, settings: TaskSettings) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        # A part of the module, so that it stands in the checkpoints.
        self.average = AveragedModel(model, use_buffers=True) if settings.average else None
        if self.average is not None:
            self.average.requires_grad_(False)
        self._graphed = GraphedSteps(model, self.compute) if settings.graphs else None
        self._epoch_started = time.monotonic()
        self.seconds = 0.0
        self.curve: list[dict[str, float]] = []  # see `pipelines.watch.history.Point`
        self.figure: str | None = None  # the name of what is validated, once it has been

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if projected_weights(self.model):
            if self.settings.average:
                raise IrnnError(
                    f"recipe.{self.settings.stage}.average={self.settings.average}: the mean of orthogonal matrices is "
                    "none; set it to 0 with model.cell_options.orthogonal=projunn_d or projunn_t"
                )
            projected = ProjectedAdam if self.settings.optimizer == "adam" else ProjectedSGD
            return projected(self.model, lr=self.settings.rates[0])
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if self.settings.optimizer == "adam":
            return torch.optim.Adam(parameters, lr=self.settings.rates[0])
        return torch.optim.SGD(parameters, lr=self.settings.rates[0])

    @property
    def part(self) -> Part:
        """What of every batch is this process's; outside of training all of it."""
        return Part() if self._trainer is None else Part(self.global_rank, self.trainer.world_size)

    def on_train_epoch_start(self) -> None:
        """Everything that an epoch depends on is set here, so that a resumed run is bit-equal to an unbroken one."""
        # Each process draws random numbers of its own.
        drawn = self.settings.stage + (f" process {self.part.index}" if self.part.index else "")
        torch.manual_seed(derived_seed(self.settings.seed, drawn, self.current_epoch))
        self._set_rate(self.settings.rates[self.current_epoch])
        self._epoch_started = time.monotonic()
        self.model.refresh()
        if self._graphed is not None:
            self._graphed.forget()

    def compute(self, *batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """A training step without its backward pass: (mean loss, tensors without gradient for the next step)."""
        raise NotImplementedError

    def computed(self, *batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """As :meth:`compute`, of a recorded graph where such are asked for."""
        return self.compute(*batch) if self._graphed is None else self._graphed(*batch)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """The rise of the learning rate; after it the rate is the epoch's."""
        rising = round(self.settings.warmups[self.current_epoch] * self.trainer.num_training_batches)
        if batch_idx <= rising:
            self._set_rate(self.settings.rates[self.current_epoch] * (batch_idx + 1) / (rising + 1))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.part.of > 1:
            join_ranges(self.model)
            average_statistics(self.model)
        if self.average is not None and self.current_epoch >= len(self.settings.rates) - self.settings.average:
            self.average.update_parameters(self.model)

    def trained(self) -> RecurrentModel:
        """What the stage hands on once it is fitted: the last weights, or their mean."""
        if self.average is not None:
            self.model.load_state_dict(self.average.module.state_dict())
        return self.model.eval()

    def _set_rate(self, rate: float) -> None:
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)  # `configure_optimizers` makes one
        for group in optimizer.param_groups:
            group["lr"] = rate

    def of_all(self, loss: torch.Tensor, count: int) -> torch.Tensor:
        """Show a batch's loss, a mean over `count`, and return what is to be differentiated.

        Of several processes: such that the mean of their gradients is the gradient of the mean over all their counts.
        """
        self.log("loss", loss, prog_bar=True, logger=False)
        self.log(
            "train_loss", loss, on_step=False, on_epoch=True, batch_size=count, logger=False, sync_dist=self.part.of > 1
        )
        if self.part.of == 1:
            return loss
        (total,) = self.summed(count)
        return loss * (count * self.part.of / total)

    def summed(self, *values: float) -> list[float]:
        """Sums over the processes."""
        if self.part.of == 1:
            return list(values)
        found = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(found)
        return found.tolist()

    def log_validation(self, loss: float, name: str, figure: float) -> None:
        """Log the figure; a loss (nats) that is not finite or absurd ends the run."""
        if not loss < _DIVERGED:
            raise IrnnError(
                f"stage {self.settings.stage}, epoch {self.current_epoch + 1}: the validation loss is {loss}, training "
                f"has diverged; lower recipe.{self.settings.stage}.lr or recipe.clip"
            )
        self.figure = name
        self.log(name, figure, prog_bar=True, logger=False, sync_dist=self.part.of > 1)

    def on_train_epoch_end(self) -> None:
        self.seconds += time.monotonic() - self._epoch_started
        shown = ("train_loss", *([] if self.figure is None else [self.figure]))
        self.curve.append(
            {
                "epoch": self.current_epoch + 1,
                "step": self.global_step,
                "lr": self.settings.rates[self.current_epoch],
                **{name: float(self.trainer.callback_metrics[name]) for name in shown},
            }
        )
        self.settings.show(self.curve)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["irnn"] = {"identity": self.settings.identity, "seconds": self.seconds, "curve": self.curve}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        found, expected = checkpoint.get("irnn", {}).get("identity"), self.settings.identity
        if found != expected:
            raise IrnnError(f"the checkpoint belongs to {found}, not to {expected}; delete it to start again")
        self.seconds = checkpoint["irnn"]["seconds"]
        self.curve = checkpoint["irnn"].get("curve", [])  # checkpoints of before have none
