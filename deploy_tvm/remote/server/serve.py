"""Starts the RPC server: on this machine, or an emulated board."""

from __future__ import annotations

import platform
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

from deploy_tvm.remote import emulated
from deploy_tvm.remote.device import Device, is_loopback
from deploy_tvm.remote.server.build import BINARY, server_folder
from irnn.errors import IrnnError
from irnn.places import need_folder

START_SECONDS = 60
Server = subprocess.Popen[bytes]


def server_command(cpu: str | None) -> list[str]:
    """The server's command on this machine, or (``cpu``) on an emulated board."""
    if cpu is not None:
        # Whoever connects, by whichever way, is told that its times are an emulator's.
        return [*emulated.command(cpu), "-E", "IRNN_EMULATED=1", str(server_folder(emulated.mtriple_of(cpu)) / BINARY)]
    if platform.system() != "Linux":
        raise IrnnError(f"the server runs under Linux; this is {platform.system()}")
    return [str(server_folder(f"{platform.machine()}-linux-gnu") / BINARY)]


def warn_if_open(host: str) -> str | None:
    """The warning that a server needs which others can reach."""
    if is_loopback(host):
        return None
    return (
        f"warning: listening on {host}: whoever can reach this port can run any code on this machine (RPC knows no "
        "passwords); do so in a network that you trust only"
    )


@contextmanager
def running(command: list[str], arguments: Sequence[str] = ()) -> Iterator[tuple[str, int, Server]]:
    """A server for the length of a ``with`` block: (host, port, its process).  It ends with this process at the latest.

    Its messages go to a temporary file; the last one is quoted where it does not start.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*command, "--lifetime", "parent", "--port", "0", *arguments], stdout=subprocess.PIPE, stderr=log
        )
        assert process.stdout is not None  # a pipe
        with process.stdout as said:
            try:
                host, port = _listening(said, log)
                yield host, port, process
            finally:
                process.kill()
                process.wait()


@contextmanager
def reachable(device: Device) -> Iterator[Device]:
    """The device as one that can be connected to: an emulated one is started for the length of the block."""
    if device.kind != "emulated":
        yield device
        return
    with running(server_command(device.cpu)) as (host, port, _):
        yield replace(device, host=host, port=port)


def serve(host: str, port: int, key: str, tracker: str | None, advertise: str | None, cpu: str | None) -> int:
    """Run a server in the foreground until it is interrupted; the exit code."""
    if warning := warn_if_open(host):
        print(warning, file=sys.stderr)
    arguments = ["--host", host, "--port", str(port), "--lifetime", "parent"]
    for name, value in (("--key", key), ("--tracker", tracker), ("--advertise", advertise)):
        arguments += [name, value] if value else []
    process = subprocess.Popen([*server_command(cpu), *arguments])
    try:
        return process.wait()
    finally:
        process.terminate()
        process.wait()


def export_server(mtriple: str, folder: Path) -> Path:
    """Copy the server for ``mtriple`` into ``folder``, to be carried to a board."""
    import shutil

    need_folder(folder, f"out={folder}")
    if folder.exists() and any(folder.iterdir()):
        raise IrnnError(f"{folder} is not empty: choose another folder")
    return Path(shutil.copytree(server_folder(mtriple), folder, dirs_exist_ok=True))


def _listening(output: IO[bytes], log: IO[bytes]) -> tuple[str, int]:
    deadline = time.monotonic() + START_SECONDS
    if select.select([output], [], [], max(0.0, deadline - time.monotonic()))[0]:
        line = output.readline().decode(errors="replace")
        if line.startswith("listening on "):
            host, _, port = line.removeprefix("listening on ").strip().rpartition(":")
            return host, int(port)
    log.seek(0)
    said = log.read().decode(errors="replace").strip().splitlines()
    raise IrnnError(f"the server does not start{': ' + said[-1] if said else f' within {START_SECONDS} s'}")
