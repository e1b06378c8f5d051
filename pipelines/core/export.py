"""The stage `program`: from the trained network to the integer-only program and its float twin on disk."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from irnn import convert, float_program
from irnn.program.storage import PROGRAM_FILE, TENSORS_FILE
from pipelines.core.manifest import files_below
from pipelines.core.stages import Result, Stage
from pipelines.core.training import Training

PROGRAM = "program"
FLOAT_PROGRAM = "float_program"


@dataclass(frozen=True)
class Export:
    """Writes `program/` and `float_program/`, the baseline from `float_matched`, each with its vocabulary."""

    training: Training
    matched: Stage

    def __call__(self, stage: Stage) -> Result:
        for name in (PROGRAM, FLOAT_PROGRAM):
            shutil.rmtree(stage.folder / name, ignore_errors=True)
        assert stage.previous is not None  # the last stage of training
        model = self.training.trained_model(stage.previous)
        program = convert(model)
        program.check()
        program.metadata.update(self.training.problem.metadata())
        program.save(stage.folder / PROGRAM)
        self.training.problem.save_vocabulary(stage.folder / PROGRAM)
        baseline = float_program(self.training.trained_model(self.matched))
        baseline.metadata.update(self.training.problem.metadata())
        baseline.save(stage.folder / FLOAT_PROGRAM)
        self.training.problem.save_vocabulary(stage.folder / FLOAT_PROGRAM)
        # What the device has to hold, tables and description and all, against the bare fp32 weights.
        stored = sum(
            path.stat().st_size
            for name in (PROGRAM_FILE, TENSORS_FILE)
            for path in (stage.folder / PROGRAM).rglob(name)
        )
        metrics = {"integer_bytes": stored, "float_bytes": baseline.size_bytes()}
        return Result(metrics, files_below(stage.folder, PROGRAM, FLOAT_PROGRAM))
