"""Configurations of small corpora of speech."""

from pathlib import Path
from typing import Any

from irnn.data.speech.digits import DigitsConfig
from irnn.data.speech.librispeech import LibriSpeechConfig
from irnn.data.speech.units import UnitsConfig
from tests.support.speech_files import NARROW

TEXTS = {
    "train-clean-100": {"1-1-0000": "ONE TWO", "1-1-0001": "THREE", "2-5-0000": "TWO ONE"},
    "dev-clean": {"3-1-0000": "ONE"},
    "test-clean": {"4-1-0000": "TWO"},
}


def digits(folder: Path, **more: Any) -> DigitsConfig:
    values = {"train_strings": 30, "evaluation_strings": 10, "units": UnitsConfig("words")} | more
    return DigitsConfig(source="digits", dir=str(folder), features=NARROW, **values)


def libri(folder: Path, tmp_path: Path, **more: Any) -> LibriSpeechConfig:
    values = {"source": "librispeech", "train": ["train-clean-100"], "cache_dir": str(tmp_path / "cache")} | more
    return LibriSpeechConfig(dir=str(folder), features=NARROW, **values)
