"""The workers, timed in interleaved rounds, and the table of what they took."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from deploy_tvm.bench.measure import MAX_SECONDS
from deploy_tvm.bench.rounds import Worker, WorkerError, interleave, now, summary
from deploy_tvm.peers import peers
from deploy_tvm.targets import machine
from irnn.commit import commit
from irnn.errors import IrnnError
from pipelines.config import RunConfig
from pipelines.recipe import QAT_STAGES

FLOAT = "float"
STAGES = (FLOAT, *QAT_STAGES)
PEERS = {"torch": ("torch",), "brevitas": ("brevitas", "brevitas_jit")}


@dataclass(frozen=True)
class Settings:
    """See the command.  seconds: of one network, all rounds together."""

    against: list[str]
    peers_python: str | None
    rounds: int
    seconds: float

    def __post_init__(self) -> None:
        for name in self.against:
            if name not in PEERS:
                raise IrnnError(f"against={name}: allowed are {', '.join(PEERS)}, as in against=[torch,brevitas]")
        if self.rounds < 1:
            raise IrnnError(f"rounds={self.rounds}: must be at least 1")
        if not 0 < self.seconds <= MAX_SECONDS:
            raise IrnnError(f"seconds={self.seconds}: must be more than 0 and at most {MAX_SECONDS}")
        peers.interpreter(self.peers_python)


def measured(
    config: RunConfig, arguments: list[str], settings: Settings, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Milliseconds a step by network, medians; ratios to the float stage; JSON-ready.

    arguments: the run's, for the workers.  A library without a figure has its reason.
    """
    core = machine.default_core()
    commands = {name: _own_command(name, arguments, core) for name in STAGES}
    reasons: dict[str, str] = {}
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="irnn-steps-") as temporary, ExitStack() as stack:
        if settings.against:
            job = Path(temporary) / "training.json"
            job.write_text(json.dumps(_network(config)), encoding="utf-8")
            python = peers.interpreter(settings.peers_python)
            names = [name for library in settings.against for name in PEERS[library]]
            commands |= {name: peers.training_command(name, python, job, core) for name in names}
        workers: dict[str, Worker] = {}
        for name, command in commands.items():
            progress(f"starting {name}")
            worker = stack.enter_context(Worker(command, Path(temporary) / f"{name}.log"))
            try:
                ready = worker.start()
            except WorkerError as error:
                if name in STAGES:
                    raise IrnnError(f"stage {name} cannot be timed: {error}") from error
                reasons[name] = _absent(name, str(error)) if error.absent else str(error)
                continue
            workers[name] = worker
            versions |= ready["versions"]
        described = machine.describe()
        times, failed = interleave(workers, settings.rounds, settings.seconds)
    reasons |= failed
    if FLOAT in failed:
        raise IrnnError(f"stage {FLOAT} cannot be timed: {failed[FLOAT]}")
    spread = {
        name: {key: value / 1000 if key in ("median", "min", "p95") else value for key, value in found.items()}
        for name, found in ((name, summary(blocks, 1)) for name, blocks in times.items())
    }
    return {
        "experiment": config.name,
        "precision": config.trainer.precision,
        "ms_per_step": {name: spread[name]["median"] if name in spread else None for name in commands},
        "over_float": {name: round(found["median"] / spread[FLOAT]["median"], 3) for name, found in spread.items()},
        "spread": spread,
        "reasons": reasons,
        "versions": machine.versions() | versions,
        "cpu": described["cpu"],
        "machine": described | {"core": core},
        "measured": now(),
        "commit": commit(),
    }


def table(result: dict[str, Any]) -> Table:
    """For people."""
    machine = result["machine"]
    shown = Table(
        "network",
        title=f"{result['experiment']}, {result['precision']}: milliseconds a training step, one thread",
        title_justify="left",
        caption=f"{machine['cpu']} ({', '.join(machine['flags'])}), load average {machine['load_average']}",
        caption_justify="left",
    )
    for heading in ("ms", "min", "p95", "/ float"):
        shown.add_column(heading, justify="right")
    shown.add_column("remark")
    for name, value in result["ms_per_step"].items():
        title = f"stage {name}" if name in STAGES else name
        if value is None:
            shown.add_row(title, "-", "", "", "", result["reasons"][name])
            continue
        spread = result["spread"][name]
        numbers = [f"{spread[key]:.1f}" for key in ("median", "min", "p95")]
        shown.add_row(title, *numbers, f"{result['over_float'][name]:.2f}")
    return shown


def _own_command(stage: str, arguments: list[str], core: int | None) -> list[str]:
    return [sys.executable, "-m", "pipelines.step_times.worker", stage, "" if core is None else str(core), *arguments]


def _network(config: RunConfig) -> dict[str, Any]:
    """What the other libraries' networks are made from."""
    if config.problem.name != "language_model":
        raise IrnnError(
            f"against: the other libraries' networks are language models, not problem={config.problem.name}; set "
            "against=[]"
        )
    architecture: Any = config.kind.open(config).architecture  # type: ignore[attr-defined]  # that of this problem
    names = ("vocabulary_size", "embedding_size", "hidden_size", "num_layers", "dropout", "tie_weights", "cell")
    return {
        **{name: getattr(architecture, name) for name in names},
        "weight_bits": config.quant.choice("weight"),
        "batch_size": config.data.batch_size,
        "steps": config.data.steps,
        "clip": config.recipe.clip,
        "optimizer": config.recipe.optimizer,
        "bf16": config.trainer.precision == "bf16",
    }


def _absent(name: str, error: str) -> str:
    package = name.removesuffix("_jit")
    return f"not installed ({error}): pip install {package}, or name a Python that has it with peers_python=FILE"
