"""A recognizer that has gone through all stages, for the tests of what is left on disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from pipelines.config import RunConfig
from pipelines.run import run
from tests.support.speech_files import tone
from tests.support.tiny_run import stages_of
from tests.support.tiny_speech import tiny_speech


@contextmanager
def threads_kept() -> Iterator[None]:
    """PyTorch's number of threads afterwards is that of before: a run sets its own."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with threads_kept():
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> tuple[RunConfig, dict, dict[str, Path]]:
    """(configuration, results, folders of the stages) of a whole run."""
    config = tiny_speech(tmp_path_factory.mktemp("speech"), "evaluation.search.beam=2")
    with threads_kept():
        results = run(config)
    return config, results, {name: stage.folder for name, stage in stages_of(config).items()}


@pytest.fixture(scope="session")
def recording(tmp_path_factory) -> Path:
    """A stereo file at another rate than the recognizer's."""
    path = tmp_path_factory.mktemp("audio") / "stereo.wav"
    left, right = tone(0.9, 22050, 300), tone(0.9, 22050, 900)
    soundfile.write(path, np.stack([left, right], axis=1), 22050)
    return path
