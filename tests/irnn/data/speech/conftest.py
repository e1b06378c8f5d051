"""Corpora on disk for the tests of speech."""

from pathlib import Path

import pytest

from tests.support.found_speech import TEXTS
from tests.support.speech_files import write_fsdd, write_librispeech


@pytest.fixture(scope="module")
def fsdd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fsdd(tmp_path_factory.mktemp("fsdd") / "fsdd")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_librispeech(tmp_path / "libri", TEXTS)
