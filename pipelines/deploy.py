"""The stages `artefact` and `bench`: compile the program with TVM and time it. TVM is imported here and only lazily."""

from __future__ import annotations

import importlib.util
import shutil
import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

import irnn
from irnn.data import Corpus
from pipelines.export import FLOAT_PROGRAM, PROGRAM
from pipelines.manifest import files_below
from pipelines.stages import Result, Stage

ARTEFACT = "artefact"
FLOAT_ARTEFACT = "float_artefact"
TARGET = "host"

_ROUNDS = 15
_STEPS_PER_ROUND = 200


def available() -> bool:
    """Whether the `tvm` extra is installed."""
    return importlib.util.find_spec("tvm") is not None


def runner_of(stage: Stage) -> Any:
    """The compiled integer program of a finished stage `artefact`: `.run(ids, state)` and `.step(ids, state)`."""
    import deploy_tvm

    return deploy_tvm.load(stage.folder / ARTEFACT)


@dataclass(frozen=True)
class Compilation:
    """Builds the integer program and its float twin for this machine."""

    program: Stage

    def __call__(self, stage: Stage) -> Result:
        import deploy_tvm

        for source, name in ((PROGRAM, ARTEFACT), (FLOAT_PROGRAM, FLOAT_ARTEFACT)):
            shutil.rmtree(stage.folder / name, ignore_errors=True)
            deploy_tvm.build(irnn.load(self.program.folder / source), stage.folder / name, target=TARGET)
        return Result({}, files_below(stage.folder, ARTEFACT, FLOAT_ARTEFACT))


@dataclass(frozen=True)
class Bench:
    """Time per token of streaming text through both libraries, one token a call, batch 1, one thread."""

    artefact: Stage
    corpus: Corpus

    def __call__(self, stage: Stage) -> Result:
        import deploy_tvm

        runners = {
            "tvm_float": deploy_tvm.load(self.artefact.folder / FLOAT_ARTEFACT),
            "tvm_integer": deploy_tvm.load(self.artefact.folder / ARTEFACT),
        }
        return Result(us_per_token(runners, self.corpus.test))


def us_per_token(runners: dict[str, Any], tokens: np.ndarray) -> dict[str, float]:
    """Median microseconds of one `step` call; the runners take turns, so that a busy machine slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    states: dict[str, Any] = dict.fromkeys(runners)
    for turn in range(_ROUNDS):
        for name, runner in runners.items():
            for index in range(_STEPS_PER_ROUND):
                ids = tokens[(turn * _STEPS_PER_ROUND + index) % len(tokens)][None]
                started = time.perf_counter()
                _, states[name] = runner.step(ids, states[name])
                times[name].append(1e6 * (time.perf_counter() - started))
    return {name: round(statistics.median(values), 2) for name, values in times.items()}
