"""Speech corpora: the synthetic one, and what all of them have in common."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from irnn.data.audio.features import filterbank
from irnn.data.speech.corpus import load_speech, speech_config_class
from irnn.data.speech.digits import digit_splits
from irnn.data.speech.synthetic_speech import SyntheticSpeechConfig, synthetic_splits
from irnn.errors import IrnnError
from pipelines.sections import read_section
from tests.support.places import ROOT
from tests.support.speech_corpora import TEXTS, digits, libri
from tests.support.speech_files import NARROW, write_fsdd, write_librispeech


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
