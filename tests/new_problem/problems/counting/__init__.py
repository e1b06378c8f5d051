"""A problem as somebody else would add it: the next number of a count, modulo so many, in steps of 1 or 2."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from irnn.models.language_model import LanguageModel, LanguageModelConfig
from irnn.program import Program
from pipelines.core.manifest import write_json
from pipelines.core.problem import Score, StageTask, TaskSettings, derived_seed
from pipelines.problems import Figure, Kind
from pipelines.sections import need_positive, read_section

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class CountingOptions:
    name: str


@dataclass(frozen=True)
class CountingEvaluation:
    sequences: int


@dataclass(frozen=True)
class CountingData:
    modulus: int
    length: int

    def __post_init__(self) -> None:
        need_positive("data.modulus", self.modulus)

    def batch(self, count: int, seed: int) -> Batch:
        """(numbers, those that follow), int64 [count, length]."""
        generator = np.random.default_rng(seed)
        step, start = generator.integers(1, 3, (count, 1)), generator.integers(self.modulus, size=(count, 1))
        numbers = torch.from_numpy((start + step * np.arange(self.length + 1)) % self.modulus)
        return numbers[:, :-1], numbers[:, 1:]


class CountingTask(StageTask):
    def __init__(self, model: LanguageModel, settings: TaskSettings, data: CountingData) -> None:
        super().__init__(model, settings)
        self.data = data

    def train_dataloader(self) -> DataLoader:
        seed = derived_seed(self.settings.seed, self.settings.stage, self.current_epoch)
        return DataLoader([self.data.batch(8, seed + k) for k in range(20)], batch_size=None)

    def val_dataloader(self) -> DataLoader:
        return DataLoader([self.data.batch(16, 0)], batch_size=None)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        loss, _ = self.model.loss(*batch)
        return self.of_all(loss, batch[0].numel())

    def validation_step(self, batch: Batch, index: int) -> None:
        loss = float(self.model.loss(*batch)[0])
        self.log_validation(loss, "test_nats", loss)


class Counting:
    def __init__(self, config: Any) -> None:
        self.data, self.sequences = config.data, config.evaluation.sequences
        self.config = read_section(
            LanguageModelConfig, {**config.model, "vocabulary_size": self.data.modulus}, "model."
        )
        self.origin = {"model": dict(config.model), "data": [self.data.modulus, self.data.length]}
        self.evaluation = {"sequences": self.sequences}

    def batching(self, stage: str) -> dict[str, Any]:
        return {}

    def build(self) -> LanguageModel:
        return LanguageModel(self.config)

    def calibration(self) -> Iterable[Tensor]:
        return [self.data.batch(8, seed)[0] for seed in range(4)]

    def task(self, model: LanguageModel, settings: TaskSettings) -> CountingTask:
        return CountingTask(model, settings, self.data)

    @torch.no_grad()
    def score(self, model: LanguageModel, folder: Path) -> Score:
        return Score({"right": self._share(lambda ids: model(torch.from_numpy(ids))[0].numpy())})

    def metadata(self) -> dict[str, Any]:
        return {"modulus": self.data.modulus}

    def save_vocabulary(self, folder: Path) -> None:
        write_json(folder / "numbers.json", list(range(self.data.modulus)))

    def evaluate(self, program: Program, model: LanguageModel, runner: Any, baseline: Path, folder: Path) -> Score:
        ids = self.data.batch(self.sequences, 1)[0].numpy()
        expected = program.run(ids)[0]
        pairs = {"interpreter_vs_qat": model.frozen().run(torch.from_numpy(ids), None)[0].numpy()}
        pairs |= {} if runner is None else {"tvm_vs_interpreter": runner.run(ids)[0]}
        mismatches = {
            name: {"count": int(np.count_nonzero(found != expected)), "compared": expected.size}
            for name, found in pairs.items()
        }
        return Score({"mismatches": mismatches, "right": self._share(lambda ids: program.run(ids)[0])})

    def bench(self, program: Program, artefacts: Mapping[str, Path]) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"us_per_count": {name: 2.0 for name in artefacts}}, {}

    def _share(self, run: Any) -> float:
        ids, targets = (part.numpy() for part in self.data.batch(self.sequences, 1))
        return float((run(ids).argmax(-1) == targets)[:, 1:].mean())


KIND = Kind(
    options=CountingOptions,
    evaluation=CountingEvaluation,
    data=lambda section: read_section(CountingData, section, "data."),
    open=Counting,
    figures={"right": Figure("right", ".0%")},
    timing="us_per_count",
    time=Figure("us/count", ".1f"),
)
