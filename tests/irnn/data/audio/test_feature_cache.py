"""The cache of features: computed once, told apart, and what it does about damage and bad audio."""

import dataclasses
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from irnn.data.audio.feature_cache import cached_features
from irnn.data.audio.features import FeatureConfig, filterbank
from irnn.data.audio.utterances import Utterance
from irnn.errors import IrnnError
from tests.support.speech_files import NARROW, tone


def utterance(number: int, read: Callable[[], np.ndarray] | None = None) -> Utterance:
    sound = tone(0.1 + 0.05 * number, 8000, 300 + 100 * number)
    return Utterance(f"u{number}", "a", "s", f"file{number}.wav", str(number), read or (lambda: sound))


def _never() -> np.ndarray:
    raise AssertionError("the cache must answer")


def test_cache_gives_the_features_back_without_audio(tmp_path: Path) -> None:
    asked = [utterance(k) for k in range(4)]
    first = cached_features(asked, NARROW, tmp_path, "x", leave_out=False)
    again = cached_features([utterance(k, _never) for k in range(4)], NARROW, tmp_path, "x", leave_out=False)
    for k in range(4):
        expected = filterbank(asked[k].read(), NARROW)
        assert np.array_equal(first[k], expected)
        assert np.array_equal(again[k], expected)
        assert again.frames[k] == len(expected)
    assert first.identity == again.identity
    every = np.concatenate([first[k] for k in range(4)]).astype(np.float64)
    assert np.allclose(again.normalization.mean, every.mean(axis=0), atol=1e-4)
    assert np.allclose(again.normalization.std, every.std(axis=0), atol=1e-4)


def test_cache_counts_centred_utterances(tmp_path: Path) -> None:
    config = dataclasses.replace(NARROW, utterance_mean=True)
    sounds = [np.random.default_rng(k).normal(0, 0.1 * (k + 1), 4000).astype(np.float32) for k in range(3)]
    asked = [utterance(k, lambda k=k: sounds[k]) for k in range(3)]
    plain = cached_features(asked, NARROW, tmp_path, "x", leave_out=False)
    table = cached_features(asked, config, tmp_path, "x", leave_out=False)
    assert table.identity != plain.identity
    assert np.array_equal(table[1], filterbank(asked[1].read(), config))  # what is stored can still be augmented
    every = np.concatenate([table[k].astype(np.float64) - table[k].mean(axis=0) for k in range(3)])
    assert table.normalization.utterance_mean
    assert np.allclose(table.normalization.mean, 0, atol=1e-4)
    assert np.allclose(table.normalization.std, every.std(axis=0), atol=1e-4)


def test_cache_tells_configurations_and_audio_apart(tmp_path: Path) -> None:
    def identity(config: FeatureConfig, *asked: Utterance) -> str:
        return cached_features(asked, config, tmp_path, "x", leave_out=False).identity

    other_audio = Utterance("u0", "a", "s", "file0.wav", "changed", lambda: tone(0.2, 8000))
    seen = [
        identity(NARROW, utterance(0)),
        identity(NARROW, utterance(0), utterance(1)),
        identity(NARROW, other_audio),
        identity(FeatureConfig(8000, 21), utterance(0)),
    ]
    assert len(set(seen)) == 4


def _request(folder: Path, log: Path) -> None:
    torch.set_num_threads(1)  # a forked process waits for ever for the threads that its parent's OpenMP had

    def read() -> np.ndarray:
        with log.open("a") as file:
            file.write("read\n")
        return tone(0.2, 8000)

    cached_features([utterance(k, read) for k in range(5)], NARROW, folder, "x", leave_out=False)


def test_concurrent_runs_compute_features_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    runs = [context.Process(target=_request, args=(tmp_path / "cache", log)) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs] == [0, 0, 0]
    assert log.read_text() == "read\n" * 5


def test_cache_survives_a_run_that_was_killed(tmp_path: Path) -> None:
    def dies() -> np.ndarray:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_features([utterance(0), utterance(1, dies)], NARROW, tmp_path, "x", leave_out=False)
    table = cached_features([utterance(0), utterance(1)], NARROW, tmp_path, "x", leave_out=False)
    assert np.array_equal(table[1], filterbank(utterance(1).read(), NARROW))


@pytest.mark.parametrize("damage", ["index.json", "features.npy"])
def test_damaged_cache_is_named(tmp_path: Path, damage: str) -> None:
    cached_features([utterance(0)], NARROW, tmp_path, "x", leave_out=False)
    path = next(tmp_path.glob(f"x-*/{damage}"))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(IrnnError, match=r"x-.* is damaged; delete that folder"):
        cached_features([utterance(0)], NARROW, tmp_path, "x", leave_out=False)


def test_bad_audio_stops_or_is_listed(tmp_path: Path) -> None:
    def broken() -> np.ndarray:
        raise IrnnError("file1.wav is broken")

    asked = [utterance(0), utterance(1, broken), utterance(2)]
    with pytest.raises(IrnnError, match=r"file1\.wav is broken"):
        cached_features(asked, NARROW, tmp_path, "x", leave_out=False)
    assert not list(tmp_path.glob("x-*"))
    table = cached_features(asked, NARROW, tmp_path, "x", leave_out=True)
    assert table.frames.tolist() == [8, 0, 18]
    assert table.left_out == {1: ("u1", "file1.wav is broken")}
    assert np.array_equal(table[2], filterbank(asked[2].read(), NARROW))
    with pytest.raises(IrnnError, match=r"file1\.wav is broken"):  # the cache must not hide it
        cached_features(asked, NARROW, tmp_path, "x", leave_out=False)


def test_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IrnnError, match=r"cannot be written .*; set `cache_dir`"):
        cached_features([utterance(0)], NARROW, tmp_path / "file", "x", leave_out=False)
