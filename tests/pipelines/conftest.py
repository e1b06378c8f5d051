"""What the tests of runs share: short benchmarks, and one run that has gone through all stages."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipelines.config import RunConfig
from pipelines.run import run
from tests.support import needs
from tests.support.tiny_run import short_timings, tiny_config


@pytest.fixture(scope="session", autouse=True)
def nothing_is_timed_for_long() -> Iterator[None]:
    with short_timings():
        yield


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, dict, Path]:
    """(configuration, results, the run's folder) of a tiny language model, trained, compiled and timed."""
    needs.tvm()
    threads = torch.get_num_threads()
    config = tiny_config(tmp_path_factory.mktemp("whole_run"), "recipe.float.epochs=2")
    results = run(config)
    torch.set_num_threads(threads)
    return config, results, config.output_dir / config.name / results["digest"]
