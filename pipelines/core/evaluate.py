"""The stage `evaluate`: the program's figures of merit, whether every executor gives the same integers, and the sites
with what their ranges clip."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import islice

import irnn
from irnn import qat
from pipelines.core.deploy import runner_of
from pipelines.core.export import PROGRAM
from pipelines.core.manifest import write_json
from pipelines.core.stages import Result, Stage
from pipelines.core.training import Training

SITES = "sites.json"
# Batches of the training set on which it is counted what the sites clip.
_BATCHES = 4


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
        batches = islice(self.training.problem.calibration(), _BATCHES)
        sites = qat.sites(self.training.trained_model(self.qat), batches)
        write_json(stage.folder / SITES, [dataclasses.asdict(site) for site in sites])
        return Result(score.metrics, [*score.files, SITES])
