"""The section `logger`."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.sections import need_one_of


@dataclass(frozen=True)
class LoggerConfig:
    """Where training curves go besides the stages' manifests. wandb: null, "offline" (files only) or "online"."""

    tensorboard: bool
    wandb: str | None

    def __post_init__(self) -> None:
        need_one_of("logger.wandb", self.wandb, (None, "offline", "online"))
