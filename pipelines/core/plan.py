"""The list of stages of a run: what each one depends on."""

from __future__ import annotations

import dataclasses
import platform
from typing import Any

from irnn.errors import arguments_of
from irnn.quant.config import ROLE_BITS
from irnn.stages import STAGE_OF_ROLE
from pipelines.config import COMPENSATED, FLOAT_ALONE, RunConfig
from pipelines.core import deploy
from pipelines.core.evaluate import Evaluation
from pipelines.core.export import Export
from pipelines.core.manifest import digest_of
from pipelines.core.problem import Problem
from pipelines.core.stages import Stage
from pipelines.core.team import Alone, Follower, Leader
from pipelines.core.training import Training
from pipelines.watch.history import History


def plan(
    config: RunConfig,
    problem: Problem[Any, Any],
    history: History | None = None,
    team: Alone | Leader | Follower | None = None,
) -> list[Stage]:
    """All stages in the order in which they run.

    history: where training shows its curves.  team: this process among those that train together.
    """
    if config.quant.of:  # a name that is wrong shall be told before the float network is trained
        with arguments_of(type(config.quant), "quant."):
            config.quant.check_names(problem.build().matrices())
    train = Training(config, problem, history or History(), team or Alone())
    root = config.output_dir / "stages"

    def trained(name: str, previous: Stage | None, **more: Any) -> Stage:
        return Stage(name, {**_training_inputs(config, problem, name), **more}, previous, train, root)

    float_stage = trained("float", None, **problem.origin, seed=config.seed)
    stages = [float_stage, trained("float_matched", float_stage)]
    latest = float_stage
    for name in () if config.post_training in FLOAT_ALONE else config.trained_stages:
        latest = trained(name, latest, pwl=dataclasses.asdict(config.pwl), quant=_quant_inputs(config, name))
        stages.append(latest)
    if config.post_training:
        way = COMPENSATED if config.post_training == COMPENSATED else True  # the stage before tells the others apart
        inputs = {"pwl": dataclasses.asdict(config.pwl), "quant": _quant_inputs(config, "all"), "post_training": way}
        if way == COMPENSATED:  # stages of before it weighed errors by gradients have no entry
            inputs["cost"] = "gradients"
        latest = Stage("all", inputs, latest, train.post_training, root)
        stages.append(latest)
    return stages + _deployment(config, train, qat=latest, matched=stages[1])


def _deployment(config: RunConfig, train: Training, qat: Stage, matched: Stage) -> list[Stage]:
    """The stages after training; without TVM the program is evaluated by the interpreter and not compiled."""
    root = config.output_dir / "stages"
    # What is written beside the program, such as how it is to be searched, may follow from settings of no stage before.
    inputs = {"float": matched.digest, "metadata": digest_of(train.problem.metadata())}
    program = Stage("program", inputs, qat, Export(train, matched), root)
    artefact = None
    if deploy.available():
        inputs = {"target": deploy.TARGET, "machine": platform.machine(), "tvm": deploy.version()}
        artefact = Stage("artefact", inputs, program, deploy.Compilation(program), root)
    evaluation = Evaluation(train, qat, matched, program, artefact)
    evaluate = Stage("evaluate", train.problem.evaluation, artefact or program, evaluation, root)
    if artefact is None:
        return [program, evaluate]
    return [
        program,
        artefact,
        evaluate,
        Stage("bench", {}, artefact, deploy.Bench(train.problem, program, artefact), root),
    ]


def _training_inputs(config: RunConfig, problem: Problem[Any, Any], stage: str) -> dict[str, Any]:
    """What every training stage's outcome depends on, besides where it starts from."""
    recipe = config.recipe
    return {
        "rates": recipe.rates(stage, config.trained_stages),
        "warmups": recipe.warmups(stage, config.trained_stages),
        "average": recipe.average(stage),
        "optimizer": recipe.optimizer,
        "clip": recipe.clip,
        # Stages that were trained before it was a key have no entry.
        **({"accumulate": recipe.accumulate} if recipe.accumulate > 1 else {}),
        "precision": config.trainer.precision,
        **problem.batching(stage),
    }


def _quant_inputs(config: RunConfig, stage: str) -> dict[str, Any]:
    """Quantization settings that reach a stage: in `pwl` no weight is quantized yet, so a sweep over them shares it."""
    values = dataclasses.asdict(config.quant)
    values |= {role: config.quant.choice(role) for role in ROLE_BITS}
    del values["code"]  # what it means stands in the roles
    del values["of"]
    if config.quant.few_bits() is not None and stage != "pwl":
        values["uniform"] = "least squares"  # stages that were trained before it have no entry
    if config.quant.of and stage != "pwl":
        values["of"] = config.quant.of_choices
    if stage == "pwl":
        return {role: bits for role, bits in values.items() if STAGE_OF_ROLE.get(role) != "weights"}
    return values
