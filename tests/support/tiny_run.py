"""The real configuration, shrunk until a whole run takes seconds; shared by the tests of the pipeline."""

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

import run as run_script
from pipelines.config import RunConfig, read_config
from pipelines.core.plan import plan
from pipelines.core.stages import Stage
from pipelines.run import problem_of
from tests.support.places import ROOT

WORDS = ["the", "cat", "dog", "sees", "a", "bird", "and", "runs", "away", "now"]

TINY = [
    "experiment=quickstart",
    "logger=none",
    "trainer.progress=false",
    "model.embedding_size=8",
    "model.hidden_size=8",
    "recipe.float.epochs=3",
    "data.batch_size=4",
    "data.steps=8",
    "pwl.pieces=8",
    "evaluation.interpreter_tokens=20",
]


# What the benchmark at a run's end takes its time from.
TIMED = ("language_model.text_problem", "classifier.classifier_problem", "copy_memory.copy_problem")


@contextmanager
def short_timings() -> Iterator[None]:
    """Benchmarks at a run's end that are as short as they can be."""
    with ExitStack() as stack:
        for module in TIMED:
            stack.enter_context(patch(f"pipelines.problems.{module}._SECONDS", 0.02))
            stack.enter_context(patch(f"pipelines.problems.{module}._ROUNDS", 2))
        yield


def write_corpus(folder: Path, lines: int = 60) -> Path:
    """A made-up corpus of 10 words."""
    generator = random.Random(7)
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", lines), ("valid", 12), ("test", 12)):
        text = "".join(" ".join(generator.choices(WORDS, k=generator.randint(2, 6))) + "\n" for _ in range(count))
        (folder / f"{split}.txt").write_text(text)
    return folder


def tiny_overrides(folder: Path) -> list[str]:
    """Overrides for a run on the made-up corpus with everything that it writes below `folder`."""
    data = write_corpus(folder / "data")
    return [*TINY, "data=text", f"data.dir={data}", "data.batch_size=4", "data.steps=8", f"output_dir={folder / 'out'}"]


def composed(*overrides: str) -> DictConfig:
    """What Hydra composes from the project's `conf` for these overrides."""
    given = [f"++{o}" if o.startswith(run_script.OPEN_KEYS) else o for o in overrides]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", overrides=given)


def tiny_config(folder: Path, *more: str) -> RunConfig:
    """The checked configuration of a tiny run."""
    return read_config(composed(*tiny_overrides(folder), *more))


def call_run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """`python run.py ARGUMENTS`, in this process."""
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    try:
        run_script.main()
    finally:
        GlobalHydra.instance().clear()


def recorded_runs(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """What `run.py` would run from now on, in place of the runs."""
    configs: list[RunConfig] = []

    def record(config: RunConfig) -> dict[str, Any]:
        configs.append(config)
        return unmeasured(config)

    monkeypatch.setattr("pipelines.run.run", record)
    return configs


def unmeasured(config: RunConfig) -> dict[str, Any]:
    """The results of a run that has measured nothing."""
    return {
        "experiment": config.name,
        "problem": config.problem.name,
        "digest": None,
        "seed": config.seed,
        "config": config.composed,
        "stages": {},
        "mismatches": None,
        "size_bytes": {"float": None, "integer": None},
        config.kind.timing: {"tvm_float": None, "tvm_integer": None},
        "versions": {},
        "commit": None,
    }


def stages_of(config: RunConfig) -> dict[str, Stage]:
    """The stages of a run by their names."""
    return {stage.name: stage for stage in plan(config, problem_of(config))}
