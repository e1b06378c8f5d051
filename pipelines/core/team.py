"""Processes that train a stage together: PyTorch's DistributedDataParallel, by Lightning.

The run's own process leads.  It alone knows of locks, caches, calibration, curves and results; the others follow: they
wait to be told of a stage, build what it trains, take their part of every batch, and wait again.  They meet at a store
(`torch.distributed.TCPStore`), where the leader announces stages and a follower says why it cannot go on.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning.accelerators import CUDAAccelerator
from pytorch_lightning.plugins.environments import ClusterEnvironment
from pytorch_lightning.strategies import DDPStrategy

from irnn.errors import IrnnError
from pipelines.config import RunConfig

_FAILED = "failed"
# How long a leader whose connection broke waits to hear from whom, and a follower that has been let go may take.
_GRACE_SECONDS = 5.0
_FOR_EVER = timedelta(days=3650)
# Groups whose training broke off, kept until the process ends.  PyTorch frees a group with Python's lock held, and
# waits for a thread of it that may want that lock to free what it still has to send: neither would ever go on
# (pytorch/pytorch#56297).
_BROKEN: list[Any] = []

Start = Callable[[], list[subprocess.Popen[bytes]]]


@dataclass(frozen=True)
class Place:
    """rank: of `count` processes on all machines, 0 leads.  local_rank: of `local_count` on this machine."""

    rank: int
    count: int
    local_rank: int
    local_count: int


class Environment(ClusterEnvironment):
    """Tells Lightning that the processes are there and connected."""

    creates_processes_externally = True
    main_address = "127.0.0.1"  # never asked for
    main_port = 0

    def __init__(self, place: Place) -> None:
        self._place = place

    @staticmethod
    def detect() -> bool:
        """It is handed over."""
        return False

    def world_size(self) -> int:
        return self._place.count

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return self._place.rank

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return self._place.local_rank

    def node_rank(self) -> int:
        return self._place.rank // self._place.local_count


@dataclass(frozen=True)
class Announcement:
    """A stage that is about to be trained: its digest, and whether it goes on from its checkpoint."""

    digest: str
    resume: bool


class Alone:
    """One process, the usual case."""

    leads = True

    @contextmanager
    def training(self, announcement: Announcement) -> Iterator[dict[str, Any]]:
        """While a stage is trained; gives what Lightning's Trainer needs to know of processes."""
        yield {"devices": 1}

    def close(self) -> None:
        """Nothing more is trained."""


class Team:
    """What leader and followers have in common."""

    def __init__(self, store: dist.Store, place: Place, backend: str) -> None:
        self._store, self._place, self._backend = store, place, backend
        self._announced = 0

    @contextmanager
    def _connected(self) -> Iterator[dict[str, Any]]:
        """While a stage is trained, all processes form a group; see `Alone.training`."""
        dist.init_process_group(
            self._backend,
            store=dist.PrefixStore(f"group{self._announced}", self._store),
            rank=self._place.rank,
            world_size=self._place.count,
        )
        try:
            yield {
                # All begin with the leader's buffers; then they are reduced (`StageTask.on_train_batch_end`).
                "strategy": DDPStrategy(cluster_environment=Environment(self._place), forward_sync_buffers=False),
                "devices": self._place.local_count,
                "num_nodes": self._place.count // self._place.local_count,
            }
        except BaseException:
            _BROKEN.append(dist.group.WORLD)
            raise
        finally:
            with contextlib.suppress(RuntimeError):  # of a group that is broken
                dist.destroy_process_group()


class Leader(Team):
    """The run's own process."""

    leads = True

    def __init__(self, store: dist.Store, place: Place, backend: str, start: Start | None) -> None:
        """start: starts the followers before the first stage; None: a launcher has, and looks after them."""
        super().__init__(store, place, backend)
        self._start = start
        self._followers: list[subprocess.Popen[bytes]] = []

    @contextmanager
    def training(self, announcement: Announcement) -> Iterator[dict[str, Any]]:
        """See `Alone`; a follower that is lost is an `IrnnError`."""
        if self._start is not None and not self._followers:
            self._followers = self._start()
        self._announced += 1
        self._store.set(f"stage{self._announced}", json.dumps(vars(announcement)))
        self._await_followers()
        try:
            with self._connected() as options:
                yield options
        except RuntimeError:  # what a broken connection is, among others
            reason = self._lost(_GRACE_SECONDS)
            if reason is None:
                raise
            raise IrnnError(reason) from None

    def close(self) -> None:
        """Let the followers go."""
        with contextlib.suppress(RuntimeError):
            self._store.set(f"stage{self._announced + 1}", "null")
        for follower in self._followers:
            try:
                follower.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                follower.kill()
                follower.wait()

    def _await_followers(self) -> None:
        """Until all have built what the stage trains."""
        for rank in range(1, self._place.count):
            while not self._store.check([f"ready{self._announced}/{rank}"]):
                reason = self._lost(0)
                if reason is not None:
                    raise IrnnError(reason)
                time.sleep(0.02)

    def _lost(self, seconds: float) -> str | None:
        """Why a follower does not go on, if one is found within the time."""
        until = time.monotonic() + seconds
        while True:
            if self._store.check([_FAILED]):
                return self._store.get(_FAILED).decode()
            ended = [(code, rank) for rank, p in enumerate(self._followers, start=1) if (code := p.poll()) is not None]
            if ended:
                code, rank = min(ended)  # one that was killed makes the others fail
                how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"has failed (exit code {code})"
                return (
                    f"process {rank} of {self._place.count}, counted from 0, {how}; the same command goes on from the "
                    "last finished epoch"
                )
            if time.monotonic() >= until:
                return None
            time.sleep(0.02)


class Follower(Team):
    """One of the others."""

    leads = False

    def announcements(self) -> Iterator[Announcement]:
        """The stages as they are announced, until the leader lets go or is gone."""
        while True:
            self._announced += 1
            key = f"stage{self._announced}"
            try:
                self._store.wait([key], _FOR_EVER)
                found = json.loads(self._store.get(key))
            except RuntimeError:  # the leader is gone
                return
            if found is None:
                return
            yield Announcement(**found)

    @contextmanager
    def training(self, announcement: Announcement) -> Iterator[dict[str, Any]]:
        """See `Alone`."""
        self._store.set(f"ready{self._announced}/{self._place.rank}", "")
        with self._connected() as options:
            yield options

    def fail(self, reason: str) -> None:
        """Tell the leader, who may know already."""
        with contextlib.suppress(RuntimeError):
            self._store.set(_FAILED, reason)


def lost_connection(error: RuntimeError) -> bool:
    """Whether it says that another process is gone; Gloo has no class of its own for that."""
    return isinstance(error, dist.DistBackendError | dist.DistNetworkError) or "gloo" in str(error)


def launched() -> bool:
    """Whether torchrun has started this process, and others beside it."""
    return dist.is_torchelastic_launched()


def team_of(config: RunConfig) -> Alone | Leader | Follower:
    """This process's place among those that train together; where they are to be started here, they are."""
    count = config.trainer.processes
    if launched():
        return _launched_team(config)
    if count == 1:
        return Alone()
    backend = _backend(config.trainer.accelerator, count)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def start() -> list[subprocess.Popen[bytes]]:
        return [_start_follower(config, store.port, rank) for rank in range(1, count)]

    return Leader(store, Place(0, count, 0, count), backend, start)


def _start_follower(config: RunConfig, port: int, rank: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pipelines.core.follow", str(port), str(rank)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as stdin:  # one that fails at once is told of later
        stdin.write(json.dumps(config.composed).encode())
    return process


def follower_at(port: int, rank: int, config: RunConfig) -> Follower:
    """The place of a process that a leader has started."""
    store, count = dist.TCPStore("127.0.0.1", port, is_master=False), config.trainer.processes
    return Follower(store, Place(rank, count, rank, count), _backend(config.trainer.accelerator, count))


def _launched_team(config: RunConfig) -> Leader | Follower:
    store, rank, count = next(dist.rendezvous("env://"))
    if config.trainer.processes not in (1, count):
        raise IrnnError(
            f"trainer.processes={config.trainer.processes}, but torchrun has started {count}; leave the key out"
        )
    place = Place(rank, count, int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]))
    backend = _backend(config.trainer.accelerator, place.local_count)
    return Leader(store, place, backend, None) if rank == 0 else Follower(store, place, backend)


def _backend(accelerator: str, count: int) -> str:
    """NCCL between GPUs, one a process; Gloo between processors."""
    gpus = torch.cuda.device_count() if CUDAAccelerator.is_available() else 0
    if accelerator == "cpu" or (accelerator == "auto" and not gpus):
        return "gloo"
    if gpus < count:
        raise IrnnError(
            f"trainer.processes={count}: each needs a GPU of its own, and PyTorch finds {gpus} here; lower it, or set "
            "trainer.accelerator=cpu"
        )
    return "nccl"
