"""One run: from the checked configuration to the table."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from pipelines.config import RunConfig
from pipelines.core import deploy
from pipelines.core.export import FLOAT_PROGRAM, PROGRAM
from pipelines.core.manifest import FILE as MANIFEST
from pipelines.core.manifest import digest_of, write_json
from pipelines.core.memory import keep_freed_memory
from pipelines.core.on_device import Board, board_of
from pipelines.core.output import need_output
from pipelines.core.plan import plan
from pipelines.core.precision import slow_precision
from pipelines.core.problem import Problem
from pipelines.core.stages import Stage, run_stages, stages_until
from pipelines.core.team import Follower, team_of
from pipelines.core.training import need_accelerator
from pipelines.report.report import RESULTS, Manifests, results_of, table_of
from pipelines.report.run_page import write_run_page
from pipelines.watch.console import console
from pipelines.watch.history import History, Identity


def run(config: RunConfig) -> dict[str, Any]:
    """Run the stages of `config` that have not been run, print the table; the results that it shows.

    A complete run (`until` is null) leaves `<output_dir>/<name>/<digest>/` with `results.json`, the manifests of its
    stages, the program and the compiled artefact.  Where a device is configured, the program is measured there too.
    """
    keep_freed_memory()
    torch.set_num_threads(config.trainer.threads)
    trainer = config.trainer
    need_accelerator(trainer.accelerator, cuda_graphs=trainer.cuda_graphs, compile=trainer.compile)
    board = board_of(config.target, config.device)
    need_output(config.output_dir)
    problem = problem_of(config)
    with contextlib.ExitStack() as ending:
        history = History()
        ending.callback(history.close)
        team = team_of(config)
        assert not isinstance(team, Follower)  # see `pipelines.core.follow.follows`
        ending.callback(team.close)
        stages = plan(config, problem, history, team)
        wanted = stages_until(stages, config.until)
        deploy.check_ready(wanted)
        history.open(config.logger, _identity(config, stages), config.output_dir)
        return _run(config, stages, wanted, history, board)


def _run(
    config: RunConfig, stages: list[Stage], wanted: list[Stage], history: History, board: Board | None
) -> dict[str, Any]:
    """See `run`; what is wrong with its configuration has been told."""
    slow = slow_precision(config.trainer)
    if slow is not None:
        console.print(slow, markup=False)
    manifests = run_stages(wanted, lambda stage, manifest: history.show(stage.name, manifest.get("curve", [])))
    results = results_of(config, stages, manifests)
    console.print(table_of(results))
    folder = None
    if not deploy.available():
        console.print("not compiled, not timed: TVM is not installed (pip install 'irnn[tvm]')", markup=False)
    if config.until is None:
        folder = config.output_dir / config.name / results["digest"]
        _assemble(folder, stages, manifests, results)
        console.print(f"the report: {write_run_page(folder)}")
        console.print(f"results, program and artefact: {folder}")
        if board is not None:
            board.measure(folder)
    history.finish(results, folder)
    return results


def _identity(config: RunConfig, stages: list[Stage]) -> Identity:
    """What loggers call this run; it does not depend on how far it goes."""
    digest = digest_of([stage.digest for stage in stages])
    epochs = {stage.name: len(stage.inputs["rates"]) for stage in stages if "rates" in stage.inputs}
    return Identity(config.name, digest, config.sweep, config.composed, epochs)


def problem_of(config: RunConfig) -> Problem[Any, Any]:
    """What the configuration is about; it reads the data."""
    return config.kind.open(config)


def _assemble(folder: Path, stages: list[Stage], manifests: Manifests, results: dict[str, Any]) -> None:
    """Make the run's own folder from the shared stages; `results.json` comes last and says that it is complete.

    Equal runs of several sweeps may end at once: they take turns.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        (folder / RESULTS).unlink(missing_ok=True)
        for stage in stages:
            write_json(folder / "stages" / stage.name / MANIFEST, manifests[stage.name] | {"folder": str(stage.folder)})
            for name in (PROGRAM, FLOAT_PROGRAM, deploy.ARTEFACT):
                if (stage.folder / name).is_dir():
                    shutil.rmtree(folder / name, ignore_errors=True)
                    shutil.copytree(stage.folder / name, folder / name)
            if stage.name == "evaluate":  # transcripts and the like
                for name in manifests[stage.name]["files"]:
                    shutil.copyfile(stage.folder / name, folder / name)
        write_json(folder / RESULTS, results)
