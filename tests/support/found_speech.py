"""A small corpus in LibriSpeech's layout that tests spoil, and what is said of it then."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from irnn.data.speech.corpus import load_speech
from irnn.data.speech.librispeech import LibriSpeechConfig
from irnn.errors import IrnnError
from tests.support.speech_files import NARROW

TEXTS = {
    "train": {"1-1-0000": "ONE TWO", "1-1-0001": "TWO", "2-5-0000": "TWO ONE"},
    "dev": {"3-1-0000": "ONE"},
    "test": {"4-1-0000": "TWO"},
}
CHAPTER = Path("train", "1", "1")
# What lies there.
BOTH = ["1-1-0000", "1-1-0001"]
Change = Callable[[Path], object]


def libri(folder: Path, **more: Any) -> LibriSpeechConfig:
    values = {"train": ["train"], "dev": ["dev"], "test": ["test"], "source": "librispeech"} | more
    return LibriSpeechConfig(dir=str(folder), features=NARROW, cache_dir=str(folder.parent / "cache"), **values)


def found(config: Any) -> tuple[dict[str, list[str]], dict[str, list[tuple[str, str]]]]:
    """(ids by split, what is left out by split) of a corpus that is ready for training."""
    corpus = load_speech(config)
    ids = {name: [utterance.id for utterance in split.utterances] for name, split in corpus.splits.items()}
    return ids, {name: [tuple(left) for left in unused] for name, unused in corpus.left_out.items() if unused}


def refused(config: Any) -> str:
    with pytest.raises(IrnnError) as caught:
        load_speech(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)
