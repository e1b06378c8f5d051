"""The configuration of a run, checked and typed. Hydra composes it from `conf/`; this is what the pipeline reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from irnn.errors import IrnnError
from irnn.qat import PwlConfig, QuantConfig
from pipelines import problems
from pipelines.recipe import QAT_STAGES, Recipe
from pipelines.sections import need_one_of, need_positive, need_section, read_section
from pipelines.watch.settings import LoggerConfig

# `post_training`: of all but the weights; of all, whose weights' rounding errors are made up for.
ACTIVATIONS, COMPENSATED = "activations", "compensated"
FLOAT_ALONE = (True, COMPENSATED)  # with these no stage trains anything quantized


def baseline_of(post_training: bool | str) -> str:
    """The float stage that a run's program is compared with: the one that was trained as long."""
    return "float" if post_training in FLOAT_ALONE else "float_matched"


@dataclass(frozen=True)
class TrainerConfig:
    """How training runs; `precision` is part of a stage's identity, the rest is not.  threads: of each of the
    processes that train together."""

    accelerator: str
    threads: int
    processes: int
    precision: str
    cuda_graphs: bool
    compile: bool
    progress: bool

    def __post_init__(self) -> None:
        need_one_of("trainer.accelerator", self.accelerator, ("cpu", "gpu", "auto"))
        need_one_of("trainer.precision", self.precision, ("fp32", "bf16"))
        need_positive("trainer.threads", self.threads)
        need_positive("trainer.processes", self.processes)
        if self.cuda_graphs and self.accelerator == "cpu":
            raise IrnnError("trainer.cuda_graphs=true needs a GPU of CUDA: set trainer.accelerator=gpu")
        if self.cuda_graphs and self.processes > 1:
            raise IrnnError(
                f"trainer.processes={self.processes}: steps that are recorded (trainer.cuda_graphs=true) train in one "
                "process; set one of the two back"
            )


@dataclass(frozen=True)
class RunConfig:
    """The whole run.

    post_training: true: the stages between `float` and `all` are left out, and `all` calibrates in place of training;
        "compensated": the same, and rounding errors are made up for (`irnn.qat.compensate`); "activations": `weights`
        is trained between the two.
    problem, data, evaluation: of the problem's own classes (`pipelines.problems.Kind`).  model: the network's keys
    without those that the data decide.  target and device: where the finished program is measured besides this machine
    (`on_device`).  composed: all keys as Hydra composed them, for the record.  sweep: what the runs that this one
    belongs to are called, or None.  command: the one that repeats the run, or None where no command was given.
    """

    name: str
    seed: int
    output_dir: Path
    until: str | None
    post_training: bool | str
    problem: Any
    trainer: TrainerConfig
    evaluation: Any
    data: Any
    model: dict[str, Any]
    quant: QuantConfig
    pwl: PwlConfig
    recipe: Recipe
    logger: LoggerConfig
    target: dict[str, Any]
    device: dict[str, Any]
    composed: dict[str, Any]
    sweep: str | None
    command: str | None

    def __post_init__(self) -> None:
        need_one_of("post_training", self.post_training, (False, True, COMPENSATED, ACTIVATIONS))

    @property
    def trained_stages(self) -> tuple[str, ...]:
        """The stages of quantization-aware training, whose epochs `float_matched` has, too.

        Without any it keeps those of all: that is how it has always been.
        """
        return ("weights",) if self.post_training == ACTIVATIONS else QAT_STAGES

    @property
    def kind(self) -> problems.Kind:
        """What this run's problem is."""
        return problems.find(self.problem.name)


def read_config(config: DictConfig, command: str | None = None, sweep: str | None = None) -> RunConfig:
    """Turn Hydra's composition into a checked `RunConfig`; whatever is wrong is one `IrnnError`."""
    composed: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    section = need_section(composed.get("problem"), "problem")
    kind = problems.find(section.get("name"))
    read = {
        "problem": read_section(kind.options, section, "problem."),
        "data": kind.data(need_section(composed.get("data"), "data")),
        "evaluation": read_section(
            kind.evaluation, need_section(composed.get("evaluation"), "evaluation"), "evaluation."
        ),
    }
    need_section(composed.get("model"), "model")
    further = {"composed": composed, "command": command, "sweep": sweep}
    return read_section(RunConfig, {**composed, **read, **further}, "")
