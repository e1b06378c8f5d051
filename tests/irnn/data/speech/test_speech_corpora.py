"""Speech corpora: connected digits, LibriSpeech, the synthetic one; what they do with bad input."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from omegaconf import OmegaConf

from irnn.data.audio.features import FeatureConfig, filterbank
from irnn.data.speech.corpus import load_speech, speech_config_class, speech_splits
from irnn.data.speech.digits import DIGITS, DigitsConfig, digit_splits, join, quiet_stretches
from irnn.data.speech.librispeech import LibriSpeechConfig, librispeech_splits
from irnn.data.speech.synthetic_speech import SyntheticSpeechConfig, synthetic_splits
from irnn.data.speech.units import UnitsConfig
from irnn.errors import IrnnError
from pipelines.sections import read_section
from tests.support import needs
from tests.support.places import ROOT
from tests.support.speech_files import tone, write_fsdd, write_librispeech

NARROW = FeatureConfig(sample_rate=8000, num_mel_bins=20)
TEXTS = {
    "train-clean-100": {"1-1-0000": "ONE TWO", "1-1-0001": "THREE", "2-5-0000": "TWO ONE"},
    "dev-clean": {"3-1-0000": "ONE"},
    "test-clean": {"4-1-0000": "TWO"},
}


@pytest.fixture(scope="module")
def fsdd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fsdd(tmp_path_factory.mktemp("fsdd") / "fsdd")


def digits(folder: Path, **more: Any) -> DigitsConfig:
    values = {"train_strings": 30, "evaluation_strings": 10, "units": UnitsConfig("words")} | more
    return DigitsConfig(source="digits", dir=str(folder), features=NARROW, **values)


def libri(folder: Path, tmp_path: Path, **more: Any) -> LibriSpeechConfig:
    values = {"source": "librispeech", "train": ["train-clean-100"], "cache_dir": str(tmp_path / "cache")} | more
    return LibriSpeechConfig(dir=str(folder), features=NARROW, **values)


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


def test_librispeech_folder(tmp_path: Path) -> None:
    folder = write_librispeech(tmp_path / "LibriSpeech", TEXTS)
    splits = librispeech_splits(libri(folder, tmp_path))
    assert [(u.id, u.text, u.speaker) for u in splits["train"]] == [
        ("1-1-0000", "ONE TWO", "1"),
        ("1-1-0001", "THREE", "1"),
        ("2-5-0000", "TWO ONE", "2"),
    ]
    assert [u.id for u in splits["dev"]] == ["3-1-0000"]
    assert len(splits["train"][1].read()) == 2000  # 0.25 s, at 8 kHz
    slow = librispeech_splits(libri(folder, tmp_path, speeds=[0.8, 1.0]))
    assert [u.id for u in slow["train"]][:2] == ["1-1-0000-x0.8", "1-1-0000"]
    assert len(slow["train"][2].read()) == 2500
    assert len(slow["dev"]) == 1


def test_splits_file_decides(tmp_path: Path) -> None:
    folder = write_librispeech(tmp_path / "LibriSpeech", TEXTS)
    paths = {path.stem: path.relative_to(folder) for path in folder.rglob("*.flac")}
    wanted = {"1-1-0000": "train", "3-1-0000": "train", "2-5-0000": "dev", "4-1-0000": "test"}
    head = "utt\tsplit\tsubset\tspeaker\tsex\tseconds\tpath\ttranscript\n"
    rows = [f"{name}\t{split}\tx\t1\tF\t1\t{paths[name]}\tTEXT OF {name[0]}\n" for name, split in wanted.items()]
    (folder / "splits.tsv").write_text(head + "".join(rows))
    splits = librispeech_splits(libri(folder, tmp_path))
    assert {split: [u.id for u in found] for split, found in splits.items()} == {
        "train": ["1-1-0000", "3-1-0000"],
        "dev": ["2-5-0000"],
        "test": ["4-1-0000"],
    }
    assert splits["dev"][0].text == "TEXT OF 2"
    (folder / "splits.tsv").write_text(head + rows[0].replace("train", "eval"))
    with pytest.raises(IrnnError, match="line 2: 1-1-0000 is of the split 'eval'; allowed: train, dev, test"):
        speech_splits(libri(folder, tmp_path))
    (folder / "splits.tsv").write_text("utt\tsplit\n1\ttrain\n")
    with pytest.raises(IrnnError, match=r"splits\.tsv has no column 'speaker'"):
        librispeech_splits(libri(folder, tmp_path))


def test_parquet_of_the_hub_gives_what_the_folder_gives(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    folder = write_librispeech(tmp_path / "LibriSpeech", TEXTS)
    for subset, texts in TEXTS.items():
        paths = {path.stem: path for path in (folder / subset).rglob("*.flac")}
        table = {
            "file": [f"{name}.flac" for name in texts],
            "audio": [{"bytes": paths[name].read_bytes(), "path": f"{name}.flac"} for name in texts],
            "text": list(texts.values()),
            "speaker_id": [int(name.split("-")[0]) for name in texts],
            "id": list(texts),
        }
        place = tmp_path / "hub" / subset.replace("-", ".")
        place.mkdir(parents=True)
        pyarrow.parquet.write_table(pyarrow.table(table), place / "0000.parquet")
    ours = librispeech_splits(libri(folder, tmp_path))
    names = {"train": ["train.clean.100"], "dev": ["dev.clean"], "test": ["test.clean"]}
    hub = librispeech_splits(libri(tmp_path / "hub", tmp_path, source="librispeech_hub", **names))
    for split in ("train", "dev", "test"):
        assert [(u.id, u.text, u.speaker) for u in hub[split]] == [(u.id, u.text, u.speaker) for u in ours[split]]
        for one, other in zip(hub[split], ours[split], strict=True):
            assert np.array_equal(one.read(), other.read())
    with pytest.raises(IrnnError, match=r"no parquet files at .*train\.other\.500/\*\.parquet"):
        librispeech_splits(libri(tmp_path / "hub", tmp_path, source="librispeech_hub", train=["train.other.500"]))


def test_synthetic_speech_is_reproducible_and_its_splits_differ(tmp_path: Path) -> None:
    config = SyntheticSpeechConfig(source="synthetic_speech", train_strings=8, evaluation_strings=4, features=NARROW)
    one, two = synthetic_splits(config), synthetic_splits(config)
    for split in ("train", "dev", "test"):
        for a, b in zip(one[split], two[split], strict=True):
            assert a.text == b.text
            assert np.array_equal(a.read(), b.read())
            assert a.read().dtype == np.float32
            assert np.abs(a.read()).max() < 1.5
    assert not np.array_equal(one["dev"][0].read()[:500], one["test"][0].read()[:500])
    assert len({a.identity for split in one.values() for a in split}) == 16


def test_words_of_synthetic_speech_sound_different() -> None:
    """The nearest mean spectrum among the words of one speaker's other strings is that of the same word."""
    config = SyntheticSpeechConfig(source="synthetic_speech", train_strings=300, max_digits=1, features=NARROW)
    means: dict[str, list[np.ndarray]] = {}
    for u in synthetic_splits(config)["train"]:
        features = filterbank(u.read(), NARROW)
        means.setdefault(u.text, []).append(features.mean(axis=0) - features.mean())
    centres = {word: np.mean(rows[::2], axis=0) for word, rows in means.items()}
    right = total = 0
    for word, rows in means.items():
        for row in rows[1::2]:
            right += min(centres, key=lambda name: float(np.square(centres[name] - row).sum())) == word
            total += 1
    assert right / total > 0.5  # chance is 0.1, and the order of the sounds is not even looked at


def test_corpus_is_ready_for_training(fsdd: Path, tmp_path: Path) -> None:
    config = digits(fsdd, cache_dir=str(tmp_path), split="speaker")
    corpus = load_speech(config)
    train = corpus.split("train")
    assert len(corpus.units) == 13
    assert len(train) == 30
    assert not train.left_out
    for k, u in enumerate(train.utterances):
        assert corpus.units.decode(train.units[k]) == u.text
        assert train.features(k).shape == (train.frames[k], 20)
        assert np.array_equal(train.features(k), filterbank(u.read(), NARROW))
    rows = np.concatenate([corpus.normalization.apply(train.features(k)) for k in range(30)])
    assert np.abs(rows.mean(axis=0)).max() < 1e-3
    assert load_speech(config).fingerprint == corpus.fingerprint
    assert load_speech(dataclasses.replace(config, seed=2)).fingerprint != corpus.fingerprint
    with pytest.raises(IrnnError, match=r"no split 'valid'; it has: train, dev, test, test_unseen_speaker"):
        corpus.split("valid")


def _spoil(folder: Path) -> None:
    """One utterance of each kind that cannot be used, beside one that can."""
    place = folder / "train-clean-100" / "7" / "1"
    place.mkdir(parents=True)
    good = tone(0.3, 16000)
    soundfile.write(place / "7-1-0000.flac", good, 16000)
    (place / "7-1-0001.flac").write_bytes(b"broken")
    soundfile.write(place / "7-1-0002.flac", good, 16000)
    soundfile.write(place / "7-1-0003.flac", np.zeros(0, np.float32), 16000)
    soundfile.write(place / "7-1-0004.flac", tone(3.0, 16000), 16000)
    texts = ["ONE", "ONE", "", "ONE", "ONE", "ONE"]  # 7-1-0005 has no file
    lines = "".join(f"7-1-{k:04d} {text}".rstrip() + "\n" for k, text in enumerate(texts))
    (place / "7-1.trans.txt").write_text(lines)


def test_unusable_utterances_are_named_and_counted_or_stop_the_run(tmp_path: Path) -> None:
    folder = write_librispeech(tmp_path / "LibriSpeech", TEXTS)
    _spoil(folder)
    corpus = load_speech(libri(folder, tmp_path, leave_out=True, max_seconds=2.0))
    train = corpus.split("train")
    assert [u.id for u in train.utterances] == ["1-1-0000", "1-1-0001", "2-5-0000", "7-1-0000"]
    assert train.features(3).shape == (train.frames[3], 20)
    reasons = {left.id: left.reason for left in train.left_out}
    expected = {
        "7-1-0001": "cannot be read as audio",
        "7-1-0002": "the transcript is empty",
        "7-1-0003": "zero length",
        "7-1-0004": r"longer than max_seconds=2",
        "7-1-0005": "is no file",
    }
    assert reasons.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in reasons[name]
        assert f"{name}.flac" in reasons[name]
        assert "\n" not in reasons[name]
        for other in {"7-1-0000", *expected} - {name}:
            (folder / "train-clean-100" / "7" / "1" / f"{other}.flac").unlink(missing_ok=True)
        lines = folder / "train-clean-100" / "7" / "1" / "7-1.trans.txt"
        text = "" if name == "7-1-0002" else " ONE"
        lines.write_text(f"{name}{text}\n")
        with pytest.raises(IrnnError) as caught:
            load_speech(libri(folder, tmp_path, max_seconds=2.0))
        assert f"{name}.flac" in str(caught.value)
        assert reason in str(caught.value)
        shutil.rmtree(folder / "train-clean-100" / "7")
        _spoil(folder)


def test_a_transcript_with_unknown_characters_is_named(tmp_path: Path) -> None:
    folder = write_librispeech(tmp_path / "LibriSpeech", TEXTS | {"dev-clean": {"3-1-0000": "ZOO"}})
    with pytest.raises(IrnnError, match=r"3-1-0000\.flac: 'Z' is not among the \d+ characters"):
        load_speech(libri(folder, tmp_path))
    with pytest.raises(IrnnError, match=r"no utterance of the dev split can be used; the first: .*'Z'"):
        load_speech(libri(folder, tmp_path, leave_out=True))


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


def test_missing_parts_of_corpora_are_named(fsdd: Path, tmp_path: Path) -> None:
    folder = write_librispeech(tmp_path / "LibriSpeech", TEXTS)
    with pytest.raises(IrnnError, match=r"has no subset 'dev-other'; there: dev-clean, test-clean, train-clean-100"):
        load_speech(libri(folder, tmp_path, dev=["dev-other"]))
    (folder / "empty").mkdir()
    with pytest.raises(IrnnError, match=r"the dev split of source=librispeech is empty"):
        load_speech(libri(folder, tmp_path, dev=["empty"]))
    with pytest.raises(IrnnError, match=r"dev='dev-clean' must list"):
        libri(folder, tmp_path, dev="dev-clean")
    with pytest.raises(IrnnError, match="is not a folder"):
        load_speech(libri(tmp_path / "nowhere", tmp_path))
    two = write_fsdd(tmp_path / "two", speakers=("ann", "bob", "george"))
    with pytest.raises(IrnnError, match="has no speaker 'theo'"):
        digit_splits(digits(two, split="speaker"))
    with pytest.raises(IrnnError, match=r"has no speaker 'zoe'.*; found: ann, bob, george, theo"):
        digit_splits(digits(write_fsdd(tmp_path / "four"), split="speaker", dev_speaker="zoe"))
    with pytest.raises(IrnnError, match=r"dev_speaker='theo' is the unseen speaker of the test"):
        digits(two, split="speaker", dev_speaker="theo")
    with pytest.raises(IrnnError, match=r"dev_speaker='ann' needs split=speaker, not 'index'"):
        digits(two, dev_speaker="ann")
    with pytest.raises(IrnnError, match=r"the dev split has no recording of 0 by ann"):
        digit_splits(digits(write_fsdd(tmp_path / "few", indices=(0, 8))))
    with pytest.raises(IrnnError, match=r"at least 3 are needed"):
        digit_splits(digits(write_fsdd(tmp_path / "one", speakers=("ann",))))


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


@pytest.mark.parametrize("name", ["digits", "librispeech", "synthetic_speech"])
def test_shipped_configurations_set_every_field(name: str) -> None:
    section = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "data" / f"{name}.yaml"))
    assert isinstance(section, dict)
    if "dir" in section:
        section["dir"] = "folder"
    config = read_section(speech_config_class(section["source"]), section, "data.")
    assert config.source == name
    values = dataclasses.asdict(config)
    assert section.keys() == values.keys()
    for part in ("features", "units", "augment", "batches"):
        assert section[part].keys() == values[part].keys()
    with pytest.raises(IrnnError, match=r"source='x' is unknown"):
        speech_config_class("x")


def test_real_digits(tmp_path: Path) -> None:
    config = digits(
        needs.data("fsdd"), split="speaker", cache_dir=str(tmp_path), train_strings=40, evaluation_strings=2
    )
    corpus = load_speech(config)
    assert {u.speaker for u in corpus.split("test_unseen_speaker").utterances} == {"theo"}
    assert "theo" not in {u.speaker for split in ("train", "dev", "test") for u in corpus.split(split).utterances}
    assert all(20 < frames < 1000 for frames in corpus.split("train").frames)


def test_real_librispeech() -> None:
    config = LibriSpeechConfig(source="librispeech", dir=str(needs.data("LibriSpeech")))
    splits = librispeech_splits(config)
    assert {name: len(found) for name, found in splits.items()} == {"train": 746, "dev": 96, "test": 156}
    speakers = [{u.speaker for u in found} for found in splits.values()]
    assert not speakers[0] & speakers[1]
    assert not (speakers[0] | speakers[1]) & speakers[2]
    first = splits["dev"][0]
    features = filterbank(first.read(), config.features, first.where)
    assert features.shape[1] == 80
    assert 5 < features.mean() < 25
