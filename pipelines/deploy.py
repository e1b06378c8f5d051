"""The stages `artefact` and `bench`: compile the program with TVM and time it. TVM is imported here and only lazily."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from typing import Any

import numpy as np

import irnn
from irnn.data import Vocabulary
from pipelines.export import FLOAT_PROGRAM, PROGRAM
from pipelines.manifest import files_below
from pipelines.stages import Result, Stage
from pipelines.text_problem import VOCABULARY

ARTEFACT = "artefact"
FLOAT_ARTEFACT = "float_artefact"
TARGET = "host"

# Of the timing: both libraries take turns, a second each in all.
_ROUNDS = 20
_SECONDS = 1.0


def available() -> bool:
    """Whether the `tvm` extra is installed."""
    return importlib.util.find_spec("tvm") is not None


def runner_of(stage: Stage) -> Any:
    """The compiled integer program of a finished stage `artefact`: `.run(ids, state)` and `.step(ids, state)`."""
    import deploy_tvm

    return deploy_tvm.load(stage.folder / ARTEFACT)


@dataclass(frozen=True)
class Compilation:
    """Builds the integer program and its float twin for this machine; the integer one carries its vocabulary along."""

    program: Stage

    def __call__(self, stage: Stage) -> Result:
        import deploy_tvm

        for source, name in ((PROGRAM, ARTEFACT), (FLOAT_PROGRAM, FLOAT_ARTEFACT)):
            shutil.rmtree(stage.folder / name, ignore_errors=True)
            program = irnn.load(self.program.folder / source)
            if source == PROGRAM:
                program.metadata["vocabulary"] = Vocabulary.load(self.program.folder / PROGRAM / VOCABULARY).words
            deploy_tvm.build(program, stage.folder / name, target=TARGET)
        return Result({}, files_below(stage.folder, ARTEFACT, FLOAT_ARTEFACT))


@dataclass(frozen=True)
class Bench:
    """Time per token of streaming text through both libraries, one token a call, batch 1, one thread."""

    program: Stage
    artefact: Stage

    def __call__(self, stage: Stage) -> Result:
        from deploy_tvm.measure import FLOAT, INTEGER, Case, Settings, measure

        case = Case(
            integer=irnn.load(self.program.folder / PROGRAM),
            floating=None,
            artefacts={INTEGER: self.artefact.folder / ARTEFACT, FLOAT: self.artefact.folder / FLOAT_ARTEFACT},
            x=np.zeros((1, 1), np.int32),
            function="step",
        )
        measured = measure(case, Settings(rounds=_ROUNDS, seconds=_SECONDS), lambda text: None)
        details = {name: measured[name] for name in ("spread", "machine", "measured")}
        return Result(measured["us"], details=details)
