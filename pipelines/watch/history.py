"""A run's curves as one history: its stages one after the other on one axis of epochs, live and when read again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch.utils.tensorboard import SummaryWriter

from pipelines.watch.settings import LoggerConfig

# What an epoch of a stage shows: its number from 1 ("epoch"), the optimizer's steps so far ("step"), "lr",
# "train_loss" and the problem's figure.
Point = Mapping[str, float]


@dataclass(frozen=True)
class Identity:
    """Which run this is: experiment, digest of all its stages, the sweep that it belongs to (or None), the composed
    configuration, and the number of epochs of each training stage, in their order."""

    experiment: str
    digest: str
    sweep: str | None
    composed: Mapping[str, Any]
    epochs: Mapping[str, int]

    @property
    def name(self) -> str:
        """Of people's lists and of folders."""
        return f"{self.experiment}-{self.digest}"


class Sink(Protocol):
    """Something that curves go to."""

    def point(self, epoch: int, values: Mapping[str, float]) -> None:
        """`values` by "stage/name", at an epoch of the whole run; epochs grow from call to call."""

    def finish(self, results: Mapping[str, Any], folder: Path | None) -> None:
        """What the run has found, and its folder where it is complete."""

    def close(self) -> None:
        """Nothing more comes, whether it has finished or failed."""


class History:
    """Where the stages' curves go.

    A stage that has run before, here or in another run, is shown from its manifest: every run's history is whole, and
    equal epochs have equal places in the histories of runs with equal recipes.
    """

    def __init__(self) -> None:
        self._sinks: list[Sink] = []
        self._before: dict[str, int] = {}
        self._last = 0

    def open(self, config: LoggerConfig, run: Identity, folder: Path) -> None:
        """Begin to log below `folder`; what cannot begin is an `IrnnError`."""
        before = 0
        for stage, epochs in run.epochs.items():
            self._before[stage] = before
            before += epochs
        if config.tensorboard:
            self._sinks.append(TensorBoard(folder / "tensorboard" / run.name))
        if config.wandb is not None:
            from pipelines.watch.wandb_run import WandbRun

            self._sinks.append(WandbRun(config.wandb, run, folder))

    def show(self, stage: str, curve: Sequence[Point]) -> None:
        """Log the epochs of a stage that have not been logged yet; `curve` holds all so far."""
        for point in curve if self._sinks else ():
            epoch = self._before[stage] + int(point["epoch"])
            if epoch > self._last:
                values = {f"{stage}/{name}": value for name, value in point.items() if name != "epoch"}
                for sink in self._sinks:
                    sink.point(epoch, values)
                self._last = epoch

    def finish(self, results: Mapping[str, Any], folder: Path | None) -> None:
        """See `Sink`."""
        for sink in self._sinks:
            sink.finish(results, folder)

    def close(self) -> None:
        """See `Sink`."""
        while self._sinks:
            self._sinks.pop().close()


class TensorBoard:
    """A run's events, in a folder of its own; what an earlier attempt has written there is superseded."""

    def __init__(self, folder: Path) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=0)

    def point(self, epoch: int, values: Mapping[str, float]) -> None:
        """See `Sink`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def finish(self, results: Mapping[str, Any], folder: Path | None) -> None:
        """Curves alone."""

    def close(self) -> None:
        """See `Sink`."""
        self._writer.close()
