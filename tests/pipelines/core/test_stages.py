"""Caching of stages, manifests and damaged files, on stages that train nothing."""

import errno
import json
import multiprocessing
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors.torch import save_file

from irnn.arithmetic import VERSION
from irnn.errors import IrnnError
from irnn.models.language_model import LanguageModel, LanguageModelConfig
from pipelines.core import manifest
from pipelines.core.checkpoints import AtomicCheckpointIO, load_weights, save_weights
from pipelines.core.stages import Result, Stage, run_stage, run_stages, stages_until


class Counter:
    """A stage that writes one file and counts how often it ran."""

    def __init__(self, failures: int = 0) -> None:
        self.runs = 0
        self.failures = failures

    def __call__(self, stage: Stage) -> Result:
        self.runs += 1
        (stage.folder / "output").write_text(stage.name)
        if self.runs <= self.failures:
            raise IrnnError("half-way")
        return Result({"figure": self.runs}, ["output"])


def test_a_stage_runs_once_for_one_set_of_inputs(tmp_path: Path) -> None:
    run = Counter()
    first = run_stage(Stage("a", {"x": 1}, None, run, tmp_path))
    assert run_stage(Stage("a", {"x": 1}, None, run, tmp_path)) == first
    assert run.runs == 1
    run_stage(Stage("a", {"x": 2}, None, run, tmp_path))
    assert run.runs == 2


def test_another_arithmetic_finds_no_stage_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage("a", {"x": 1}, None, Counter(), tmp_path)
    before = stage.digest
    monkeypatch.setattr("pipelines.core.stages.VERSION", VERSION + 1)
    assert stage.digest != before


def test_inputs_of_a_stage_change_all_that_follow(tmp_path: Path) -> None:
    run = Counter()
    folders = []
    for x in (1, 2):
        before = Stage("a", {"x": x}, None, run, tmp_path)
        folders.append(Stage("b", {}, before, run, tmp_path).folder)
    assert folders[0] != folders[1]


def test_a_stage_that_failed_is_not_trusted(tmp_path: Path) -> None:
    run = Counter(failures=1)
    stage = Stage("a", {}, None, run, tmp_path)
    with pytest.raises(IrnnError, match="half-way"):
        run_stage(stage)
    assert manifest.read_manifest(stage.folder) is None
    assert run_stage(stage)["metrics"] == {"figure": 2}


def test_until_stops_and_unknown_names_are_refused_before_anything_runs(tmp_path: Path) -> None:
    run = Counter()
    stages = [Stage(name, {}, None, run, tmp_path) for name in ("a", "b", "c")]
    with pytest.raises(IrnnError, match="until=d is no stage; allowed: a, b, c, or null for all"):
        stages_until(stages, "d")
    assert run.runs == 0
    assert list(run_stages(stages_until(stages, "b"))) == ["a", "b"]


def _slow_stage(stage: Stage) -> Result:
    with (stage.folder / "log").open("a") as log:
        log.write("ran\n")
    time.sleep(0.3)
    return Result({}, ["log"])


def test_two_processes_run_a_stage_once(tmp_path: Path) -> None:
    stage = Stage("a", {}, None, _slow_stage, tmp_path)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=run_stage, args=(stage,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (stage.folder / "log").read_text() == "ran\n"


def _hold(stage: Stage, held: Path, seal: bool) -> None:
    """Take the stage's lock, seal the stage or not, and keep the lock until killed."""
    with FileLock(stage.folder.with_suffix(".lock")):
        if seal:
            stage.folder.mkdir()
            (stage.folder / "output").write_text("theirs")
            manifest.write_manifest(stage.folder, {"metrics": {"figure": "theirs"}}, ["output"])
        held.write_text("")
        time.sleep(100)


@pytest.mark.parametrize("seal", [True, False])
def test_waiting_for_another_run_ends_when_its_stage_is_sealed_or_it_dies(tmp_path: Path, seal: bool) -> None:
    run = Counter()
    stage = Stage("a", {}, None, run, tmp_path / "stages")
    stage.root.mkdir()
    holder = multiprocessing.get_context("fork").Process(target=_hold, args=(stage, tmp_path / "held", seal))
    holder.start()
    try:
        while not (tmp_path / "held").is_file():
            time.sleep(0.01)
        if not seal:
            threading.Timer(0.5, holder.kill).start()
        found = run_stage(stage)["metrics"]
        assert holder.is_alive() is seal
    finally:
        holder.kill()
        holder.join()
    assert found == ({"figure": "theirs"} if seal else {"figure": 1})
    assert run.runs == (0 if seal else 1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "output").write_text("edited"), "not the file that the stage wrote"),
        (lambda folder: (folder / "output").unlink(), "missing or not the file"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "is damaged; delete the folder"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "is damaged; delete the folder"),
        (
            lambda folder: (folder / "manifest.json").write_text(
                json.dumps(json.loads((folder / "manifest.json").read_text()) | {"format": 0})
            ),
            "is of format 0",
        ),
    ],
)
def test_damaged_results_are_refused_in_one_line(tmp_path: Path, damage: object, message: str) -> None:
    stage = Stage("a", {}, None, Counter(), tmp_path)
    run_stage(stage)
    damage(stage.folder)
    with pytest.raises(IrnnError, match=message) as caught:
        run_stage(stage)
    assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    manifest.write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(manifest.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        manifest.write_atomically(path, b"new content")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_weights_round_trip_and_truncation(tmp_path: Path) -> None:
    table = torch.nn.Parameter(torch.randn(3, 2))
    model = torch.nn.Module()
    model.one, model.two = table, table
    save_weights(model, tmp_path)
    loaded = load_weights(tmp_path)
    assert list(loaded) == ["one", "two"]
    for tensor in loaded.values():
        assert np.array_equal(tensor.numpy(), table.detach().numpy())
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:-5])
    with pytest.raises(IrnnError, match="cannot be read"):
        load_weights(tmp_path)


def test_a_tied_matrix_is_stored_once_and_files_that_hold_it_twice_still_load(tmp_path: Path) -> None:
    model = LanguageModel(LanguageModelConfig(vocabulary_size=50, embedding_size=8, hidden_size=8))
    state = model.state_dict()
    save_weights(model, tmp_path)
    once = (tmp_path / "model.safetensors").stat().st_size
    for before in (False, True):
        if before:  # as it was written until irnn 0.2
            save_file({name: tensor.clone() for name, tensor in state.items()}, tmp_path / "model.safetensors")
            assert (tmp_path / "model.safetensors").stat().st_size >= once + 50 * 8 * 4
        loaded = load_weights(tmp_path)
        assert loaded.keys() == state.keys()
        for name, tensor in state.items():
            assert loaded[name].numpy().tobytes() == tensor.numpy().tobytes()  # a range that is not there is NaN
        LanguageModel(model.config).load_state_dict(loaded)


class Weights(Counter):
    """A stage that reads the weights of the one before and leaves its own."""

    def __call__(self, stage: Stage) -> Result:
        if stage.previous is not None:
            load_weights(stage.previous.folder)
        self.runs += 1
        return Result({}, [save_weights(torch.nn.Linear(2, 2), stage.folder)])


def test_weights_that_nothing_needs_any_more_may_be_removed(tmp_path: Path) -> None:
    run = Weights()
    first = Stage("a", {}, None, run, tmp_path)
    second = Stage("b", {}, first, run, tmp_path)
    done = run_stages([first, second])
    (first.folder / "model.safetensors").unlink()
    assert run_stages([first, second]) == done
    assert run.runs == 2
    with pytest.raises(IrnnError, match=r"model\.safetensors was removed, .* put it back, or delete") as caught:
        run_stages([first, second, Stage("c", {}, first, run, tmp_path)])
    assert str(first.folder) in str(caught.value)
    (second.folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(IrnnError, match="not the file that the stage wrote"):
        run_stages([first, second])


class _Stranger:
    """Something that only running the file's code could bring back."""


@pytest.mark.parametrize("change", ["truncated", "edited", "empty", "code"])
def test_bad_checkpoints_are_one_clear_line(tmp_path: Path, change: str) -> None:
    path = tmp_path / "resume.ckpt"
    io = AtomicCheckpointIO()
    io.save_checkpoint({"epoch": 1, "state_dict": {"w": torch.arange(1000.0)}}, str(path))
    assert io.load_checkpoint(str(path))["epoch"] == 1
    content = bytearray(path.read_bytes())
    if change == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif change == "edited":
        where = content.index(torch.tensor([500.0, 501.0]).numpy().tobytes())
        content[where] ^= 0x40
        path.write_bytes(content)
    elif change == "empty":
        path.write_bytes(b"")
    else:
        torch.save({"epoch": _Stranger()}, path)
    with pytest.raises(IrnnError, match=r"is not a readable checkpoint .* delete it to start this") as caught:
        io.load_checkpoint(str(path))
    assert "\n" not in str(caught.value)
