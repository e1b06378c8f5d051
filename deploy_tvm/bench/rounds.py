"""Runtimes side by side: one process each, timed in short interleaved blocks so that drift hits all alike."""

from __future__ import annotations

import json
import os
import select
import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

START_TIMEOUT = 300.0  # seconds; TensorFlow's converter needs a minute on a slow machine
REPLY_TIMEOUT = 120.0  # seconds beyond the block itself


class WorkerError(Exception):
    """A runtime that has no figure, and why.  ``absent``: it is not installed."""

    def __init__(self, reason: str, *, absent: bool = False) -> None:
        super().__init__(reason)
        self.absent = absent


class Worker:
    """A process that holds one runtime; see ``peer_worker`` for the protocol.  A context manager."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._log = log
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "TVM_NUM_THREADS": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "",
        }
        with open(log, "wb") as stderr:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env=environment
            )
        requests, replies = self._process.stdin, self._process.stdout
        assert requests is not None  # a pipe
        assert replies is not None  # a pipe
        self._requests, self._replies = requests, replies

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def start(self) -> dict[str, Any]:
        """Wait until the runtime is loaded: ``{"versions", "setting"}``."""
        return self._read(START_TIMEOUT)

    def time(self, seconds: float) -> list[float]:
        """Durations in microseconds of the calls of one block."""
        return self._ask({"seconds": seconds}, seconds)["us"]

    def output(self) -> np.ndarray:
        """The first output of the very first call, from the initial state."""
        path = self._log.with_suffix(".npy")
        self._ask({"save": str(path)}, 0)
        return np.load(path, allow_pickle=False)

    def close(self) -> None:
        """End the process; a runtime that does not leave by itself is killed."""
        for stream in (self._requests, self._replies):
            with suppress(BrokenPipeError):  # a dead runtime never read the last request
                stream.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()
        except BrokenPipeError:
            raise WorkerError(self._death()) from None
        return self._read(seconds + REPLY_TIMEOUT)

    def _read(self, seconds: float) -> dict[str, Any]:
        # One whole line per reply and none unasked for: what select sees is the beginning of the line wanted.
        if not select.select([self._replies], [], [], seconds)[0]:
            self._process.kill()
            raise WorkerError(f"no answer within {seconds:.0f} s")
        line = self._replies.readline()
        if not line:
            raise WorkerError(self._death())
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"], absent=reply["absent"])
        return reply

    def _death(self) -> str:
        code = self._process.wait(10)
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"its process ended with code {code}" + (f": {lines[-1]}" if lines else "")


def interleave(
    workers: dict[str, Worker], rounds: int, seconds: float, progress: Callable[[int], None] = lambda done: None
) -> tuple[dict[str, list[list[float]]], dict[str, str]]:
    """Time every worker ``rounds`` times for ``seconds / rounds``, round-robin.

    Returns the calls' microseconds by name and round, and the reasons of those that failed on the way.
    """
    times: dict[str, list[list[float]]] = {name: [] for name in workers}
    reasons: dict[str, str] = {}
    for done in range(rounds):
        for name in [name for name in times if name not in reasons]:
            try:
                times[name].append(workers[name].time(seconds / rounds))
            except WorkerError as error:
                reasons[name] = str(error)
        progress(done + 1)
    return {name: blocks for name, blocks in times.items() if name not in reasons}, reasons


def summary(blocks: list[list[float]], steps: int) -> dict[str, Any]:
    """Microseconds per step: the median of the rounds' medians, and how widely single calls spread around it."""
    calls = np.concatenate(blocks) / steps
    return {
        "median": round(statistics.median(statistics.median(block) for block in blocks) / steps, 3),
        "min": round(float(calls.min()), 3),
        "p95": round(float(np.percentile(calls, 95)), 3),
        "rounds": len(blocks),
        "calls": int(calls.size),
    }


def now() -> str:
    """The time of a measurement, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
