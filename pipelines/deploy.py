"""The stages `artefact` and `bench`: compile the program with TVM and time it. TVM is imported here and only lazily."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from typing import Any

import irnn
from irnn.data import Vocabulary
from irnn.data.units import Units
from irnn.program_set import ProgramSet
from pipelines.export import FLOAT_PROGRAM, PROGRAM
from pipelines.manifest import files_below
from pipelines.problem import Problem
from pipelines.stages import Result, Stage
from pipelines.text_problem import VOCABULARY

ARTEFACT = "artefact"
FLOAT_ARTEFACT = "float_artefact"
TARGET = "host"


def available() -> bool:
    """Whether the `tvm` extra is installed."""
    return importlib.util.find_spec("tvm") is not None


def runner_of(stage: Stage) -> Any:
    """The compiled integer program of a finished stage `artefact`: `.run(ids, state)` and `.step(ids, state)`."""
    import deploy_tvm

    return deploy_tvm.load(stage.folder / ARTEFACT)


@dataclass(frozen=True)
class Compilation:
    """Builds the integer program and its float twin for this machine; what is built carries its vocabulary along."""

    program: Stage

    def __call__(self, stage: Stage) -> Result:
        import deploy_tvm

        for source, name in ((PROGRAM, ARTEFACT), (FLOAT_PROGRAM, FLOAT_ARTEFACT)):
            shutil.rmtree(stage.folder / name, ignore_errors=True)
            folder = self.program.folder / source
            program = irnn.load(folder)
            if isinstance(program, ProgramSet):
                deploy_tvm.build(program, stage.folder / name, target=TARGET)
                Units.load(folder).save(stage.folder / name)
                continue
            if source == PROGRAM:
                program.metadata["vocabulary"] = Vocabulary.load(folder / VOCABULARY).words
            deploy_tvm.build(program, stage.folder / name, target=TARGET)
        return Result({}, files_below(stage.folder, ARTEFACT, FLOAT_ARTEFACT))


@dataclass(frozen=True)
class Bench:
    """Hands the program and both libraries to the problem, which knows what to time."""

    problem: Problem
    program: Stage
    artefact: Stage

    def __call__(self, stage: Stage) -> Result:
        from deploy_tvm.measure import FLOAT, INTEGER

        artefacts = {INTEGER: self.artefact.folder / ARTEFACT, FLOAT: self.artefact.folder / FLOAT_ARTEFACT}
        metrics, details = self.problem.bench(irnn.load(self.program.folder / PROGRAM), artefacts)
        return Result(metrics, details=details)
