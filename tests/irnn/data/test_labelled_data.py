"""Labelled sequences: the corpus' own split, labels, batches, and recordings that cannot be used."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from irnn.data.audio.augment import AugmentConfig
from irnn.data.audio.features import FeatureConfig
from irnn.data.labelled.batches import LabelledBatches
from irnn.data.labelled.config import DigitWordsConfig, SyntheticWordsConfig
from irnn.data.labelled.corpus import load_labelled
from irnn.data.speech.digits import DIGITS
from irnn.errors import IrnnError
from tests.support.speech_files import write_fsdd

FEATURES = FeatureConfig(sample_rate=8000, num_mel_bins=40)


@pytest.fixture
def words(tmp_path: Path) -> SyntheticWordsConfig:
    return SyntheticWordsConfig(
        source="synthetic_words", train_words=40, evaluation_words=7, cache_dir=str(tmp_path / "cache"),
        features=FEATURES, batch_size=8,
    )  # fmt: skip


@pytest.fixture
def recordings(tmp_path: Path) -> DigitWordsConfig:
    folder = write_fsdd(tmp_path / "fsdd", indices=(0, 4, 5, 8))
    return DigitWordsConfig(source="digit_words", dir=str(folder), cache_dir=str(tmp_path / "cache"), features=FEATURES)


def test_recordings_are_split_by_their_index_and_labelled_by_their_digit(recordings: DigitWordsConfig) -> None:
    corpus = load_labelled(recordings)
    indices = {name: {u.id.split("_")[2] for u in split.utterances} for name, split in corpus.splits.items()}
    assert indices == {"train": {"8"}, "dev": {"5"}, "test": {"0", "4"}}
    assert {name: len(split) for name, split in corpus.splits.items()} == {"train": 40, "dev": 40, "test": 80}
    for split in corpus.splits.values():
        assert [str(label) for label in split.labels] == [u.id[0] for u in split.utterances]
    assert corpus.labels == DIGITS
    frames = {len(corpus.splits["train"].features(k)) for k in range(40)}
    assert frames == set(corpus.splits["train"].frames.tolist())


def test_words_and_fingerprints_follow_what_a_model_sees(words: SyntheticWordsConfig) -> None:
    corpus = load_labelled(words)
    assert {name: len(split) for name, split in corpus.splits.items()} == {"train": 40, "dev": 7, "test": 7}
    assert load_labelled(dataclasses.replace(words, batch_size=3)).fingerprint == corpus.fingerprint
    for changed in ({"train_words": 41}, {"features": dataclasses.replace(FEATURES, num_mel_bins=24)}):
        assert load_labelled(dataclasses.replace(words, **changed)).fingerprint != corpus.fingerprint


def test_batches_hold_every_sequence_once_and_are_drawn_anew(words: SyntheticWordsConfig) -> None:
    corpus = load_labelled(words)
    fixed = list(LabelledBatches(corpus, "train", 8))
    assert len(fixed) == len(LabelledBatches(corpus, "train", 8)) == 5
    assert torch.cat([batch.labels for batch in fixed]).tolist() == corpus.splits["train"].labels.tolist()
    for batch in fixed:
        assert batch.features.shape[:2] == (8, int(batch.frames.max()))
        for row, frames in enumerate(batch.frames.tolist()):
            assert not batch.features[row, frames:].any()
    first = corpus.normalization.apply(corpus.splits["train"].features(0))
    assert np.array_equal(fixed[0].features[0, : len(first)].numpy(), first)

    def drawn(seed: int, epoch: int) -> list[int]:
        batches = LabelledBatches(corpus, "train", 8, seed, epoch)
        return torch.cat([batch.frames for batch in batches]).tolist()

    assert drawn(1, 0) == drawn(1, 0)
    assert drawn(1, 0) != drawn(1, 1)
    assert sorted(drawn(1, 0)) == sorted(drawn(1, 1)) == sorted(corpus.splits["train"].frames.tolist())


def test_training_batches_are_augmented_the_others_not(words: SyntheticWordsConfig) -> None:
    loud = load_labelled(dataclasses.replace(words, augment=AugmentConfig(level_db=6)))
    plain = load_labelled(words)
    for seed, equal in ((None, True), (1, False)):
        a, b = (next(iter(LabelledBatches(corpus, "train", 8, seed))) for corpus in (loud, plain))
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.features, b.features) is equal


def test_recordings_that_cannot_be_used_are_one_line_or_counted(recordings: DigitWordsConfig) -> None:
    folder = Path(recordings.dir or "") / "recordings"
    soundfile.write(folder / "3_ann_8.wav", np.zeros(3), 8000)
    soundfile.write(folder / "three.wav", np.zeros(4000), 8000)
    with pytest.raises(IrnnError, match=r"three\.wav does not say who speaks what") as caught:
        load_labelled(recordings)
    assert "\n" not in str(caught.value)
    (folder / "three.wav").unlink()
    with pytest.raises(IrnnError, match=r"3_ann_8\.wav has 3 samples"):
        load_labelled(recordings)
    corpus = load_labelled(dataclasses.replace(recordings, leave_out=True))
    assert [one.id for one in corpus.left_out["train"]] == ["3_ann_8"]
    assert "3_ann_8" not in {u.id for u in corpus.splits["train"].utterances}
    assert len(corpus.splits["train"]) == 39


def test_a_label_without_a_recording_and_a_missing_folder_are_one_line(recordings: DigitWordsConfig) -> None:
    for path in (Path(recordings.dir or "") / "recordings").glob("7_*_8.wav"):
        path.unlink()
    with pytest.raises(IrnnError, match=r"the train split of source=digit_words has no 'seven'; add some"):
        load_labelled(recordings)
    with pytest.raises(IrnnError, match=r"add dir=FOLDER"):
        DigitWordsConfig(source="digit_words")
    with pytest.raises(IrnnError, match=r"holds no folder `recordings`"):
        load_labelled(dataclasses.replace(recordings, dir="/nowhere"))
