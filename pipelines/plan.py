"""The list of stages of a run: what each one depends on."""

from __future__ import annotations

import dataclasses
from typing import Any

from irnn.data import Corpus
from irnn.models.language_model import LanguageModelConfig
from pipelines.config import RunConfig
from pipelines.stages import Stage
from pipelines.training import Training


def plan(config: RunConfig, corpus: Corpus, architecture: LanguageModelConfig) -> list[Stage]:
    """All stages in the order in which they run."""
    train = Training(config, corpus, architecture)
    root = config.output_dir / "stages"

    def trained(name: str, previous: Stage | None, **more: Any) -> Stage:
        inputs = {**_training_inputs(config, name), **more}
        return Stage(name, inputs, previous, train, root)

    float_stage = trained(
        "float",
        None,
        model=set_values(architecture),
        data=corpus.fingerprint,
        seed=config.seed,
    )
    matched = trained("float_matched", float_stage)
    return [float_stage, matched]


def _training_inputs(config: RunConfig, stage: str) -> dict[str, Any]:
    """What every training stage's outcome depends on, besides where it starts from."""
    return {
        "rates": config.stages.rates(stage),
        "optimizer": config.trainer.optimizer,
        "clip": config.trainer.clip,
        "precision": config.precision(stage),
        "batch_size": config.data.batch_size,
        "steps": config.data.steps,
    }


def set_values(settings: Any) -> dict[str, Any]:
    """Fields of a dataclass that differ from their defaults: a new option with a default keeps old results valid."""
    fields = dataclasses.fields(settings)
    return {field.name: value for field in fields if (value := getattr(settings, field.name)) != field.default}
