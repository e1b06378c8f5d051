"""The host's side of a session: starts the worker, gives up a device that does not answer, names what went wrong."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deploy_tvm.remote.device import Device
from irnn.errors import IrnnError

# Importing TVM; it has nothing to do with the device, and machines may be busy.
START_SECONDS = 180
AUTOPSY_SECONDS = 10
# For a worker to close its session; TVM may wait for ever for a device that has vanished in the meantime.
CLOSE_SECONDS = 5

Progress = Callable[[str], None]


class DeviceError(IrnnError):
    """The device cannot be reached or failed; the message names it, the stage and the cause."""


class LostError(DeviceError):
    """The connection broke for a reason that only the device may know; ``server``: the address that a tracker gave."""

    def __init__(self, text: str, server: str | None) -> None:
        super().__init__(text)
        self.server = server


def describe(device: Device) -> dict[str, Any] | None:
    """What the device's server tells of it; None where it is TVM's own, which tells nothing."""
    return run_job(device, {"library": None})["device"]


def run_job(device: Device, job: dict[str, Any], progress: Progress = lambda text: None) -> dict[str, Any]:
    """Run a worker's job on ``device``; every stage has ``device.timeout`` seconds for its first sign of life."""
    try:
        return _run(device, job, progress)
    except LostError as error:
        raise DeviceError(f"{error}{_autopsy(device, error.server)}") from None


def _run(device: Device, job: dict[str, Any], progress: Progress) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="irnn-remote-") as scratch:
        path, log = Path(scratch) / "job.json", Path(scratch) / "log"
        path.write_text(json.dumps({**job, "device": asdict(device)}), encoding="utf-8")
        with open(log, "wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "deploy_tvm.remote.worker", str(path)],
                stdout=subprocess.PIPE, stderr=file, env=_environment(),
            )  # fmt: skip
        assert process.stdout is not None  # a pipe
        with process.stdout as said:
            try:
                return _follow(device, process, _Lines(said.fileno()), progress)
            finally:
                process.kill()
                process.wait()


def _follow(device: Device, process: subprocess.Popen[bytes], lines: _Lines, progress: Progress) -> dict[str, Any]:
    stage, seconds, server, name = "starting", float(START_SECONDS), None, device.name
    while True:
        try:
            line = lines.next(seconds)
        except TimeoutError:
            raise DeviceError(
                f"{name}: no answer within {seconds:g} s while {stage}; is it busy with another "
                "session, or too slow (device.timeout)?"
            ) from None
        if line is None:
            raise LostError(f"{name}: the connection broke while {stage}", server)
        message = json.loads(line)
        if "result" in message or "error" in message:
            _let_close(process)
        if "result" in message:
            return {**message["result"], "server": server}
        if "error" in message:
            text = f"{name}: {message['error']}"
            if message["known"]:
                raise DeviceError(text)
            raise LostError(f"{name}: failed while {stage}: {message['error']}", server)
        stage, seconds = message["stage"], device.timeout + (device.cooldown if "timing" in message["stage"] else 0)
        if "server" in message:
            server, name = message["server"], f"{device.name} at {message['server']}"
        progress(stage)


def _let_close(process: subprocess.Popen[bytes]) -> None:
    """A worker that has said its last word closes its session: a connection that is cut ends TVM's own server."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(CLOSE_SECONDS)


class _Lines:
    """Whole lines from a pipe, with a deadline each."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._buffer = descriptor, b""

    def next(self, seconds: float) -> bytes | None:
        """The next line, None at the end; TimeoutError when it is not there in time."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._descriptor], [], [], left)[0]:
                raise TimeoutError
            data = os.read(self._descriptor, 1 << 16)
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


def _autopsy(device: Device, server: str | None) -> str:
    """What the device says about a session that broke."""
    brief = Device(**{**asdict(device), "timeout": min(device.timeout, AUTOPSY_SECONDS)})
    try:
        reply = _run(brief, {"library": None}, lambda text: None)
    except DeviceError as error:
        return f"; afterwards: {str(error).removeprefix(device.name).lstrip(': ')}"
    if reply["server"] != server:
        return f"; afterwards the tracker gave another device at {reply['server']}, which the next run can use"
    told = reply["device"]
    if told is None:
        return "; its server is still there"
    if not told["last_failure"]:
        return "; its server is there again and saw no failure: the connection was cut"
    illegal = " (built for another CPU? choose another target=)" if "signal 4" in told["last_failure"] else ""
    return f"; the server says: {told['last_failure']}{illegal}"


def _environment() -> dict[str, str]:
    """The worker imports this very package, wherever it is called from; of TVM the runtime alone, which is quicker."""
    root = str(Path(__file__).parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TVM_USE_RUNTIME_LIB": "1"}
