"""The stage `evaluate`: the program's figures of merit, and whether every executor gives the same integers."""

from __future__ import annotations

from dataclasses import dataclass

import irnn
from pipelines.core.deploy import runner_of
from pipelines.core.export import PROGRAM
from pipelines.core.stages import Result, Stage
from pipelines.core.training import Training


@dataclass(frozen=True)
class Evaluation:
    """Hands the program on disk, the trained model and the compiled program to the problem.

    matched: the stage of the float baseline.  artefact: the one that compiled the program, or None without TVM.
    """

    training: Training
    qat: Stage
    matched: Stage
    program: Stage
    artefact: Stage | None

    def __call__(self, stage: Stage) -> Result:
        program = irnn.load(self.program.folder / PROGRAM)
        model = self.training.trained_model(self.qat)
        runner = None if self.artefact is None else runner_of(self.artefact)
        score = self.training.problem.evaluate(program, model, runner, self.matched.folder, stage.folder)
        return Result(score.metrics, list(score.files))
