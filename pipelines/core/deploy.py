"""The stages `artefact` and `bench`: compile the program with TVM and time it. TVM is imported here and only lazily."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import deploy_tvm
import irnn
from irnn.errors import IrnnError
from pipelines.core.export import FLOAT_PROGRAM, PROGRAM
from pipelines.core.manifest import FILE as MANIFEST
from pipelines.core.manifest import files_below, versions
from pipelines.core.problem import Problem
from pipelines.core.stages import Result, Stage

ARTEFACT = "artefact"
FLOAT_ARTEFACT = "float_artefact"
TARGET = "host"


def available() -> bool:
    """Whether the `tvm` extra is installed."""
    return importlib.util.find_spec("tvm") is not None


def version() -> str:
    """The version of TVM; an installation that does not say it is an `IrnnError`."""
    found = versions().get("apache-tvm")
    if found is None:
        raise IrnnError("TVM is there, but not as the package apache-tvm: pip install 'irnn[tvm]'")
    return found


def check_ready(stages: Sequence[Stage]) -> None:
    """Before anything is trained: an `IrnnError` where the program could not be compiled in the end.

    stages: those that are going to run.
    """
    if not any(stage.name == ARTEFACT and not (stage.folder / MANIFEST).is_file() for stage in stages):
        return
    deploy_tvm.need_tvm()
    from deploy_tvm import targets
    from deploy_tvm.targets import toolchain

    toolchain.find(targets.find(TARGET).mtriple)


def runner_of(stage: Stage) -> Any:
    """The compiled integer program of a finished stage `artefact`: `.run(ids, state)` and `.step(ids, state)`."""
    return deploy_tvm.load(stage.folder / ARTEFACT)


@dataclass(frozen=True)
class Compilation:
    """Builds the integer program and its float twin for this machine; what is built carries its vocabulary along."""

    program: Stage

    def __call__(self, stage: Stage) -> Result:
        from deploy_tvm.artefact import exported

        for source, name in ((PROGRAM, ARTEFACT), (FLOAT_PROGRAM, FLOAT_ARTEFACT)):
            shutil.rmtree(stage.folder / name, ignore_errors=True)
            exported.build(self.program.folder / source, stage.folder / name, TARGET)
        return Result({}, files_below(stage.folder, ARTEFACT, FLOAT_ARTEFACT))


@dataclass(frozen=True)
class Bench:
    """Hands the program and both libraries to the problem, which knows what to time."""

    problem: Problem[Any, Any]
    program: Stage
    artefact: Stage

    def __call__(self, stage: Stage) -> Result:
        from deploy_tvm.bench.measure import FLOAT, INTEGER

        artefacts = {INTEGER: self.artefact.folder / ARTEFACT, FLOAT: self.artefact.folder / FLOAT_ARTEFACT}
        metrics, details = self.problem.bench(irnn.load(self.program.folder / PROGRAM), artefacts)
        return Result(metrics, details=details)
