"""Processes that train together give what one gives, leave one folder, and where one is lost the run says so, once."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from irnn.batch_part import Part
from irnn.errors import IrnnError
from pipelines.config import RunConfig, read_config
from pipelines.core import team
from pipelines.core.checkpoints import load_weights
from pipelines.core.team import Leader, Place, team_of
from pipelines.problems.language_model.language_model_task import LanguageModelTask
from pipelines.run import problem_of, run
from tests.support.places import ROOT
from tests.support.tiny_run import call_run, composed, stages_of, tiny_config, tiny_overrides

# 5 rows: of two processes one has two, one three.
EQUAL = ["model.dropout=0", "data.batch_size=5", "recipe.float.epochs=1"]
TRAINED = ("float", "float_matched", "pwl", "weights", "activations", "all")


@pytest.fixture(autouse=True)
def one_thread() -> object:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def manifest(config: RunConfig, stage: str) -> dict:
    return json.loads((stages_of(config)[stage].folder / "manifest.json").read_text())


def followers(folder: Path) -> list[int]:
    """Processes that follow a run with this output folder: they were told where to write."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command = (place / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if "pipelines.core.follow" in command and os.stat(place).st_uid == os.getuid():
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid():
                found.append(int(place.name))
    return found


def once(condition: Callable[[], bool], then: Callable[[], None]) -> threading.Thread:
    """Calls `then` as soon as the condition holds, while something else goes on."""

    def wait() -> None:
        deadline = time.monotonic() + 120
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.01)
        then()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("until", ["pwl", pytest.param("all", marks=pytest.mark.slow)])
def test_two_processes_train_what_one_trains(until: str, tmp_path: Path) -> None:
    """The same order, losses, ranges and figures, as far as float sums in another order let them."""
    more = [*EQUAL, f"until={until}"]
    one, two = (tiny_config(tmp_path / name, *more, f"trainer.processes={n}") for n, name in enumerate(("a", "b"), 1))
    run(one)
    run(two)
    for stage in TRAINED[: TRAINED.index(until) + 1]:
        assert stages_of(one)[stage].digest == stages_of(two)[stage].digest
        expected, found = manifest(one, stage), manifest(two, stage)
        assert [point["step"] for point in found["curve"]] == [point["step"] for point in expected["curve"]]
        for ours, theirs in zip(found["curve"], expected["curve"], strict=True):
            assert ours["train_loss"] == pytest.approx(theirs["train_loss"], abs=1e-4), stage
            assert math.log(ours["valid_perplexity"]) == pytest.approx(math.log(theirs["valid_perplexity"]), abs=1e-4)
        weights = load_weights(stages_of(two)[stage].folder)
        for name, tensor in load_weights(stages_of(one)[stage].folder).items():
            torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-4, equal_nan=True)
    # One folder a stage, and nothing beside it.
    left = sorted(path.name for path in (tmp_path / "b" / "out").rglob("*") if path.suffix != ".lock")
    assert left == sorted(path.name for path in (tmp_path / "a" / "out").rglob("*") if path.suffix != ".lock")
    assert followers(tmp_path) == []


@pytest.mark.slow
def test_a_killed_process_ends_the_run_in_one_line_and_it_goes_on(tmp_path: Path) -> None:
    more = ["until=float", "trainer.processes=2", "model.dropout=0.3"]
    unbroken, broken = (tiny_config(tmp_path / name, *more) for name in ("a", "b"))
    run(unbroken)
    folder = stages_of(broken)["float"].folder
    killing = once((folder / "resume.ckpt").is_file, lambda: [os.kill(f, signal.SIGKILL) for f in followers(tmp_path)])
    with pytest.raises(IrnnError, match=r"process 1 of 2, counted from 0, was killed \(SIGKILL\)") as caught:
        run(broken)
    killing.join()
    assert "\n" not in str(caught.value)
    assert not (folder / "manifest.json").exists()
    run(broken)
    expected, found = (load_weights(stages_of(config)["float"].folder) for config in (unbroken, broken))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items() if "observed" not in name)
    assert manifest(broken, "float")["curve"] == manifest(unbroken, "float")["curve"]


@pytest.mark.slow
def test_a_run_that_ends_takes_its_followers_along(tmp_path: Path) -> None:
    """Killed itself, it leaves no process behind."""
    command = [sys.executable, str(ROOT / "run.py"), *tiny_overrides(tmp_path), "recipe.float.epochs=100000"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "trainer.processes=2"], stderr=subprocess.PIPE, env=environment)
    deadline = time.monotonic() + 180
    while not list(tmp_path.glob("out/stages/float-*/resume.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    children = (Path("/proc") / str(process.pid) / "task" / str(process.pid) / "children").read_text().split()
    assert children
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while any((Path("/proc") / child).exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any((Path("/proc") / child).exists() for child in children)


def test_a_group_whose_training_breaks_off_is_not_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    """To free it would now and then be to wait for ever: PyTorch holds Python's lock for a thread that wants it."""
    kept: list[object] = []
    monkeypatch.setattr(team, "_BROKEN", kept)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with pytest.raises(RuntimeError, match="broke"), Leader(store, Place(0, 1, 0, 1), "gloo", None)._connected():
        raise RuntimeError("broke")
    assert [isinstance(group, dist.ProcessGroup) for group in kept] == [True]
    assert not dist.is_initialized()


def test_a_follower_ends_with_its_leader_whatever_it_waits_for() -> None:
    imports = "import os, time; from pipelines.core import follow"
    stuck = "follow.keep_freed_memory = lambda: (print(os.getpid(), flush=True), time.sleep(600))"
    waits = f"{imports}; {stuck}; follow.follow(None, None)"
    starts = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    command = [sys.executable, "-c", starts, waits]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as leader:
        assert leader.stdout is not None
        follower = Path("/proc") / leader.stdout.readline().strip()
        assert follower.exists()
        leader.kill()
    deadline = time.monotonic() + 60
    while follower.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not follower.exists()


@pytest.mark.slow
def test_a_sweep_of_runs_with_two_processes_leaves_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = ["recipe.float.epochs=1", "until=weights", "trainer.processes=2"]
    call_run(monkeypatch, "-m", *tiny_overrides(tmp_path), *more, "quant.weight=4,8")
    names = [path.name.split("-")[0] for path in (tmp_path / "out" / "stages").iterdir() if path.is_dir()]
    assert sorted(names) == ["float", "float_matched", "pwl", "weights", "weights"]
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("data", "out")] == []


@pytest.mark.slow
def test_torchrun_starts_the_processes_as_well(tmp_path: Path) -> None:
    """Which is how several machines take part."""
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    overrides = [*tiny_overrides(tmp_path / "b"), *EQUAL, "until=float"]
    done = subprocess.run(
        [*start, str(ROOT / "run.py"), *overrides],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("float: running") == 1
    one = tiny_config(tmp_path / "a", *EQUAL, "until=float")
    run(one)
    two = read_config(composed(*overrides))
    for ours, theirs in zip(manifest(two, "float")["curve"], manifest(one, "float")["curve"], strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], abs=1e-4)
    swept = subprocess.run(
        [*start, str(ROOT / "run.py"), "-m", *overrides, "seed=1,2"],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert swept.returncode != 0
    assert "error: torchrun starts the processes of one run, not of a sweep" in swept.stderr


def test_each_process_draws_its_own_numbers_and_one_draws_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else dropout would leave out the same of every process's rows."""
    config = tiny_config(tmp_path)
    seeds: list[int] = []
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    problem = problem_of(config)
    train = stages_of(config)["float"].run
    for index in range(3):
        task = train._task(stages_of(config)["float"], problem.build())
        monkeypatch.setattr(LanguageModelTask, "part", Part(index, 3))
        monkeypatch.setattr(LanguageModelTask, "_set_rate", lambda self, rate: None)
        task.on_train_epoch_start()
    assert len(set(seeds)) == 3


def test_more_processes_than_rows_are_one_line(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, "trainer.processes=2", "data.batch_size=1", "until=float")
    with pytest.raises(IrnnError, match=r"data\.batch_size=1: each of the 2 processes needs a row; raise it"):
        run(config)
    assert followers(tmp_path) == []


def test_more_processes_than_gpus_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team.CUDAAccelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    config = tiny_config(tmp_path, "trainer.processes=2", "trainer.accelerator=gpu")
    with pytest.raises(IrnnError, match=r"trainer\.processes=2: each needs a GPU of its own, and PyTorch finds 1 here"):
        team_of(config)


class Store(dict):
    """A store without a server."""

    def check(self, keys: list[str]) -> bool:
        return all(key in self for key in keys)


class Ended:
    """A follower that has ended."""

    def __init__(self, code: int | None) -> None:
        self.code = code

    def poll(self) -> int | None:
        return self.code


@pytest.mark.parametrize(
    ("codes", "said", "reason"),
    [
        ([None, None], None, None),
        # The one that was killed made the other one fail.
        ([1, -9], None, "process 2 of 3, counted from 0, was killed (SIGKILL); the same command goes on from the last"),
        ([None, 1], None, "process 2 of 3, counted from 0, has failed (exit code 1)"),
        ([1, None], "pwl.0 is NaN", "pwl.0 is NaN"),
    ],
)
def test_who_is_lost_is_told(codes: list[int | None], said: str | None, reason: str | None) -> None:
    store = Store() if said is None else Store(failed=said.encode())
    leader = Leader(store, Place(0, 3, 0, 3), "gloo", None)
    leader._followers = [Ended(code) for code in codes]
    found = leader._lost(0)
    assert found is None if reason is None else found.startswith(reason)
