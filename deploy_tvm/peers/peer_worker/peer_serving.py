"""The worker's side of the protocol: times blocks of calls when asked.

One JSON object a line: the worker says ``{"ready": ...}`` or ``{"error": ...}``, then answers ``{"seconds": s}`` with
``{"us": [...]}``, the durations of the calls of a block of about ``s`` seconds, and ``{"save": path}`` by saving the
first output of the very first call as ``.npy``.  Every call takes NumPy arrays and leaves its outputs readable as such.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np

WARM_UP_SHARE = 0.25  # of a block: the runtimes before it have emptied the caches
MAX_CALLS = 20000  # of one block


@dataclass(frozen=True)
class Runtime:
    """A model that is ready to run.  ``call`` takes no arguments and returns its outputs; the first one is compared.

    versions: package -> version.  setting: what was chosen where there was a choice.  keep: what the call reads
    through bare pointers.  compared: the first output as it is compared, batch first and in real numbers, where a
    runtime has another order or integers of its own.
    """

    call: Callable[[], Sequence[np.ndarray]]
    versions: dict[str, str]
    setting: str = ""
    keep: Any = None
    compared: Callable[[np.ndarray], np.ndarray] = lambda output: output


def serve(load: Callable[[], Runtime], core: int | None) -> None:
    """Load a runtime and answer requests on stdin until it closes; whatever libraries print goes to stderr."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    try:
        runtime = load()
        first = runtime.compared(
            np.array(runtime.call()[0])
        )  # before any other call: a runtime may carry its state along
        runtime.call()
    except Exception as error:
        # Whatever a foreign runtime raises is a reason for having no figure, never the end of the benchmark.
        _reply(replies, {"error": f"{type(error).__name__}: {error}".strip(), "absent": isinstance(error, ImportError)})
        return
    _reply(replies, {"ready": True, "versions": runtime.versions, "setting": runtime.setting})
    gc.disable()
    for line in sys.stdin:
        request = json.loads(line)
        if "save" in request:
            np.save(request["save"], first, allow_pickle=False)
            _reply(replies, {"saved": True})
        else:
            _reply(replies, {"us": block(runtime.call, request["seconds"])})


def block(call: Callable[[], Any], seconds: float) -> list[float]:
    """Durations in microseconds of calls over about ``seconds``, warm-up left out; at least one."""
    start = time.perf_counter()
    call()
    while time.perf_counter() < start + WARM_UP_SHARE * seconds:
        call()
    times: list[float] = []
    while True:
        before = time.perf_counter()
        call()
        after = time.perf_counter()
        times.append(round((after - before) * 1e6, 3))
        if after > start + seconds or len(times) >= MAX_CALLS:
            return times


def quicker(calls: dict[str, Callable[[], Any]]) -> tuple[str, Callable[[], Any]]:
    """The quickest of some ways to make the same call, by the median of three short blocks each, interleaved."""
    if len(calls) == 1:
        return next(iter(calls.items()))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(3):
        for name, call in calls.items():
            times[name] += block(call, 0.1)
    best = min(times, key=lambda name: float(np.median(times[name])))
    return best, calls[best]


def _reply(stream: TextIO, message: dict[str, Any]) -> None:
    print(json.dumps(message), file=stream, flush=True)
