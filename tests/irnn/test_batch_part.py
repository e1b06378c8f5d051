"""The parts of a batch are its rows, each once, whatever their number."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from irnn.batch_part import Part
from irnn.data import TextBatches
from irnn.data.audio.features import FeatureConfig
from irnn.data.labelled.batches import LabelledBatches
from irnn.data.labelled.config import SyntheticWordsConfig
from irnn.data.labelled.corpus import load_labelled
from irnn.data.speech.corpus import load_speech
from irnn.data.speech.speech_batches import SpeechBatches
from pipelines.config import read_config
from tests.support.tiny_run import composed
from tests.support.tiny_speech import tiny_speech_overrides


@given(st.integers(0, 30), st.integers(1, 9))
def test_every_row_is_one_parts(count: int, of: int) -> None:
    rows = list(range(count))
    parts = [Part(index, of) for index in range(of)]
    assert [row for part in parts for row in rows[part.rows(count)]] == rows
    sizes = [len(rows[part.rows(count)]) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    for part, size in zip(parts, sizes, strict=True):
        assert part.owns(count) is (size > 0)
        if count:
            assert rows[part.rows_to_train(count)] == (rows[part.rows(count)] if size else rows[:1])


@given(st.integers(7, 60), st.integers(1, 7), st.integers(1, 9), st.integers(1, 4))
def test_parts_of_text_are_the_rows_of_the_whole(tokens: int, rows: int, steps: int, of: int) -> None:
    ids = np.random.default_rng(tokens).integers(0, 9, tokens).astype(np.int32)
    whole = list(TextBatches(ids, 0, rows, steps))
    parts = [list(TextBatches(ids, 0, rows, steps, Part(index, of))) for index in range(of)]
    parts = [part for part in parts if part]  # those without rows yield nothing
    assert all(len(part) == len(whole) for part in parts)
    for number, batch in enumerate(whole):
        for kind in range(2):
            assert torch.equal(torch.cat([part[number][kind] for part in parts]), batch[kind])


def test_parts_of_labelled_sequences(tmp_path: Path) -> None:
    config = SyntheticWordsConfig(
        source="synthetic_words", train_words=41, evaluation_words=3, cache_dir=str(tmp_path),
        features=FeatureConfig(sample_rate=8000, num_mel_bins=8), batch_size=8,
    )  # fmt: skip
    corpus = load_labelled(config)
    whole = list(LabelledBatches(corpus, "train", 8, 5))
    loaders = [LabelledBatches(corpus, "train", 8, 5, part=Part(index, 3)) for index in range(3)]
    parts = [list(loader) for loader in loaders]
    assert [loader.owns(5) for loader in loaders] == [False, False, True]  # the last batch has one sequence
    for number, batch in enumerate(whole):
        own = [part[number] for part, loader in zip(parts, loaders, strict=True) if loader.owns(number)]
        assert torch.equal(torch.cat([part.labels for part in own]), batch.labels)
        assert torch.equal(torch.cat([part.frames for part in own]), batch.frames)
    assert torch.equal(parts[0][5].labels, whole[5].labels)  # it trains along


def test_parts_of_utterances(tmp_path: Path) -> None:
    corpus = load_speech(read_config(composed(*tiny_speech_overrides(tmp_path))).data)
    whole = SpeechBatches(corpus, "train", 3)
    parts = []
    for index in range(5):
        parts.append(SpeechBatches(corpus, "train", 3))
        parts[-1].part = Part(index, 5)
    for number in range(len(whole)):
        batch = whole[number]
        own = [part[number] for part in parts if part.owns(number)]
        assert torch.equal(torch.cat([part.indices for part in own]), batch.indices)
        for part in own:
            assert part.features.shape[1] == part.frames.max()  # padded to its own longest
    assert len({len(part) for part in parts}) == 1


def test_a_part_carries_its_rows_of_the_stream() -> None:
    """Its first input is the end of the row above, which another part has."""
    ids = np.arange(12)
    (first, _), *_ = TextBatches(ids, 99, 4, 2, Part(1, 2))
    assert first.tolist() == [[5, 6], [8, 9]]
    (first, _), *_ = TextBatches(ids, 99, 4, 2, Part(0, 2))
    assert first.tolist() == [[99, 0], [2, 3]]


@pytest.mark.parametrize("index", range(2))
def test_a_part_without_rows_yields_nothing(index: int) -> None:
    batches = TextBatches(np.arange(12), 0, 1, 4, Part(index, 2))
    assert len(batches) == len(list(batches)) == (3 if index else 0)
