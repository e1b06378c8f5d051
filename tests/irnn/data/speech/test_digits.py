"""Connected digits: splits, strings, silence, speeds, bad configurations and recordings."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from irnn.data.speech.corpus import load_speech
from irnn.data.speech.digits import DIGITS, DigitsConfig, digit_splits, join, quiet_stretches
from irnn.errors import IrnnError
from tests.support import needs
from tests.support.speech_corpora import digits
from tests.support.speech_files import NARROW, tone, write_fsdd


def files_of(utterances: list) -> set[str]:
    return {name for u in utterances for name in u.where.split("(")[1].rstrip(")").split(", ")}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"split": "index"}, {"train": (None, {"8"}), "dev": (None, {"5"}), "test": (None, {"0", "4"})}),
        (
            {"split": "speaker"},
            {
                "train": ({"ann", "bob", "george"}, {"8"}),
                "dev": ({"ann", "bob", "george"}, {"5"}),
                "test": ({"ann", "bob", "george"}, {"0", "4"}),
                "test_unseen_speaker": ({"theo"}, {"0", "4", "5", "8"}),
            },
        ),
        (
            {"split": "speaker", "dev_speaker": "george"},
            {
                "train": ({"ann", "bob"}, {"5", "8"}),
                "dev": ({"george"}, {"0", "4", "5", "8"}),
                "test": ({"ann", "bob"}, {"0", "4"}),
                "test_unseen_speaker": ({"theo"}, {"0", "4", "5", "8"}),
            },
        ),
    ],
)
def test_digit_splits_take_the_recordings_that_they_may(fsdd: Path, choice: dict, expected: dict) -> None:
    splits = digit_splits(digits(fsdd, **choice, train_strings=200, evaluation_strings=60))
    assert list(splits) == list(expected)
    for name, (speakers, indices) in expected.items():
        files = files_of(splits[name])
        assert {file.split("_")[1] for file in files} == (speakers or {"ann", "bob", "george", "theo"})
        assert {file[:-4].split("_")[2] for file in files} == indices
        assert {u.speaker for u in splits[name]} == {file.split("_")[1] for file in files}
    every = [files_of(utterances) for utterances in splits.values()]
    assert sum(map(len, every)) == len(set.union(*every))


def test_digit_strings_depend_on_seed_and_number_alone(fsdd: Path) -> None:
    few, many = digit_splits(digits(fsdd)), digit_splits(digits(fsdd, train_strings=50))
    other = digit_splits(digits(fsdd, seed=2))
    for k in range(30):
        assert few["train"][k].text == many["train"][k].text
        assert few["train"][k].identity == many["train"][k].identity
        assert np.array_equal(few["train"][k].read(), many["train"][k].read())
    assert [u.text for u in few["train"]] != [u.text for u in other["train"]]
    assert [u.identity for u in few["test"]] == [u.identity for u in other["test"]]


def test_digit_strings_have_the_asked_lengths_and_words(fsdd: Path) -> None:
    splits = digit_splits(digits(fsdd, train_strings=300))
    lengths = [len(u.text.split()) for u in splits["train"]]
    assert set(lengths) == set(range(1, 8))
    assert {word for u in splits["train"] for word in u.text.split()} == set(DIGITS)
    for u in splits["train"][:20]:
        named = u.where.split("(")[1].rstrip(")").split(", ")
        assert [DIGITS[int(name[0])] for name in named] == u.text.split()


def test_digit_string_holds_its_recordings_with_recorded_silence_between(fsdd: Path) -> None:
    """Each digit of the test corpus is one loud stretch of 900 samples: they can be counted and measured."""
    for u in digit_splits(digits(fsdd))["test"]:
        samples = u.read()
        loud = np.sqrt(np.convolve(samples**2, np.ones(80) / 80, "same")) > 0.05
        edges = np.flatnonzero(np.diff(loud.astype(int)))
        assert len(edges) == 2 * len(u.text.split())
        assert np.all(np.abs(edges[1::2] - edges[::2] - 900) < 160)
        quiet = samples[~loud]
        assert 0.001 < np.sqrt(np.mean(quiet**2)) < 0.02  # the background's 0.002, with the digits' flanks; never 0
        assert np.mean(quiet == 0) < 0.05


def test_speeds_change_training_strings_only(fsdd: Path) -> None:
    plain, fast = digit_splits(digits(fsdd)), digit_splits(digits(fsdd, speeds=[1.25]))
    for k in range(10):
        assert len(fast["train"][k].read()) == pytest.approx(len(plain["train"][k].read()) / 1.25, abs=2)
        assert np.array_equal(fast["test"][k].read(), plain["test"][k].read())


def test_quiet_stretches_are_background() -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, 8000).astype(np.float32)
    noise[3000:5000] += tone(0.25, 8000)
    found = quiet_stretches([noise], 8000)
    assert sum(map(len, found)) > 5000
    assert all(np.abs(stretch).max() < 0.06 for stretch in found)
    rising = np.linspace(0.1, 1, 1600, dtype=np.float32)  # nowhere quiet for 40 ms: the quietest 40 ms
    assert np.array_equal(quiet_stretches([rising], 8000)[0], rising[:320])


def test_join_fades_between_pieces() -> None:
    ones = np.ones(100, np.float32)
    joined = join([ones, ones, ones[:3]], 10)
    assert len(joined) == 100 + 90
    assert np.allclose(joined, 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dir": ""}, r"`dir` is not set"),
        ({"dir": "/nonexistent"}, "holds no folder `recordings`"),
        ({"split": "random"}, r"split='random' is unknown; allowed: index, speaker"),
        ({"speeds": [4]}, r"speeds=\[4\.0\]"),
        ({"train_strings": 0}, r"train_strings=0 must be at least 1"),
        ({"max_seconds": -1}, r"max_seconds=-1 must be greater than 0"),
        ({"source": "digit"}, r"source='digit' is unknown; allowed: synthetic_speech, digits"),
    ],
)
def test_bad_digit_configurations_are_refused(fsdd: Path, tmp_path: Path, values: dict, message: str) -> None:
    content = {"source": "digits", "dir": str(fsdd), "cache_dir": str(tmp_path)} | values
    with pytest.raises(IrnnError, match=message):
        load_speech(DigitsConfig(features=NARROW, **content))


def test_a_damaged_recording_of_digits_is_named(tmp_path: Path) -> None:
    folder = write_fsdd(tmp_path / "fsdd")
    (folder / "recordings" / "3_ann_8.wav").write_bytes(b"RIFF")
    config = digits(folder, cache_dir=str(tmp_path / "cache"), train_strings=60)
    with pytest.raises(IrnnError, match=r"3_ann_8\.wav cannot be read as audio"):
        load_speech(config)
    train = load_speech(dataclasses.replace(config, leave_out=True)).split("train")
    assert 0 < len(train.left_out) < 30
    assert all("3_ann_8.wav" in left.reason for left in train.left_out)
    assert not any("3_ann_8.wav" in u.where for u in train.utterances)


def test_real_digits(tmp_path: Path) -> None:
    config = digits(
        needs.data("fsdd"), split="speaker", cache_dir=str(tmp_path), train_strings=40, evaluation_strings=2
    )
    corpus = load_speech(config)
    assert {u.speaker for u in corpus.split("test_unseen_speaker").utterances} == {"theo"}
    assert "theo" not in {u.speaker for split in ("train", "dev", "test") for u in corpus.split(split).utterances}
    assert all(20 < frames < 1000 for frames in corpus.split("train").frames)
