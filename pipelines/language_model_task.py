"""Training of a language model as a LightningModule: truncated backpropagation with carried state."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from irnn.errors import IrnnError
from irnn.models.base import RecurrentModel

Batch = tuple[Tensor, Tensor]

# Nats per word; a uniform guess over a million words has 14.
_DIVERGED = 50.0


def derived_seed(seed: int, stage: str, epoch: int) -> int:
    """Seed of one epoch: depends on nothing that happened before, so a resumed run draws the same numbers."""
    return int.from_bytes(hashlib.sha256(f"{seed} {stage} {epoch}".encode()).digest()[:8], "big") >> 1


class LanguageModelTask(pl.LightningModule):
    """One training stage.

    model: gives `loss(ids, targets, state) -> (loss, state)`, where the state None is the one before the first token.
    identity: written into checkpoints and compared on resume.  rates: learning rate by epoch.
    """

    def __init__(
        self,
        model: RecurrentModel,
        *,
        stage: str,
        identity: str,
        seed: int,
        rates: Sequence[float],
        optimizer: str,
        bf16: bool,
    ) -> None:
        super().__init__()
        self.model = model
        self._stage = stage
        self._identity = identity
        self._seed = seed
        self._rates = list(rates)
        self._optimizer = optimizer
        self._bf16 = bf16
        self._carried: dict[str, Tensor] | None = None
        self._validation_state: dict[str, Tensor] | None = None
        self._validated: list[tuple[float, int]] = []
        self._epoch_started = time.monotonic()
        self.seconds = 0.0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if self._optimizer == "adam":
            return torch.optim.Adam(parameters, lr=self._rates[0])
        return torch.optim.SGD(parameters, lr=self._rates[0])

    def on_train_epoch_start(self) -> None:
        """Everything that an epoch depends on is set here, so that a resumed run is bit-equal to an unbroken one."""
        torch.manual_seed(derived_seed(self._seed, self._stage, self.current_epoch))
        self._carried = None
        for group in self.optimizers().param_groups:
            group["lr"] = self._rates[self.current_epoch]
        self._epoch_started = time.monotonic()
        self.model.refresh()

    def training_step(self, batch: Batch, index: int) -> Tensor:
        ids, targets = batch
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=self._bf16):
            loss, self._carried = self.model.loss(ids, targets, self._carried)
        self.log("loss", loss, prog_bar=True, logger=False)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=targets.numel())
        return loss

    def on_validation_epoch_start(self) -> None:
        self._validation_state = None
        self._validated = []

    def validation_step(self, batch: Batch, index: int) -> None:
        ids, targets = batch
        loss, self._validation_state = self.model.loss(ids, targets, self._validation_state)
        self._validated.append((float(loss), targets.numel()))

    def on_validation_epoch_end(self) -> None:
        tokens = sum(count for _, count in self._validated)
        loss = sum(loss * count for loss, count in self._validated) / tokens
        if not loss < _DIVERGED:
            raise IrnnError(
                f"stage {self._stage}, epoch {self.current_epoch + 1}: the validation loss is {loss}, training has "
                f"diverged; lower stages.{self._stage}.lr or trainer.clip"
            )
        self.log("valid_perplexity", math.exp(loss), prog_bar=True)

    def on_train_epoch_end(self) -> None:
        self.seconds += time.monotonic() - self._epoch_started
        self.log("lr", self._rates[self.current_epoch])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["irnn"] = {"identity": self._identity, "seconds": self.seconds}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        found = checkpoint.get("irnn", {}).get("identity")
        if found != self._identity:
            raise IrnnError(f"the checkpoint belongs to {found}, not to {self._identity}; delete it to start again")
        self.seconds = checkpoint["irnn"]["seconds"]
