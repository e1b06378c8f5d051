"""Several devices of one tracker's key, measured at once: each on its own, and the spread between them."""

from __future__ import annotations

import statistics
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from deploy_tvm.artefact.artefact_set import open_parts
from deploy_tvm.bench.measure import Progress
from deploy_tvm.bench.subject import opened
from deploy_tvm.remote import session
from deploy_tvm.remote.bench import bench_device, described, figures, golden_runs, runs_on, told
from deploy_tvm.remote.device import Device
from deploy_tvm.remote.rpc_board import Reserved, RpcBoard
from deploy_tvm.remote.session import DeviceError
from deploy_tvm.remote.tracker import RefusedError, ask_tracker, registered
from deploy_tvm.remote.workload import Lengths
from deploy_tvm.targets import Target


def bench_devices(
    folder: Path, float_folder: str | None, target: Target, device: Device, lengths: Lengths, progress: Progress
) -> dict[str, Any]:
    """``bench_device``, or for ``device.count`` of a tracker's devices at once: ``boards`` in the result holds what it
    would say of each, by the address of its server, and ``spread`` the figures of all (``spread_of``)."""
    if device.count == 1:
        return bench_device(folder, float_folder, target, device, lengths, progress)
    programs = open_parts(folder)
    workload = lengths.workload(folder, programs)
    with tempfile.TemporaryDirectory(prefix="irnn-bench-") as scratch:
        subject = opened(folder, float_folder, Path(scratch), progress, target)
        goldens = golden_runs(workload, subject, progress)

        def measured(number: int) -> dict[str, Any]:
            place = Path(scratch) / f"board{number}"
            place.mkdir()
            reserve = lambda: fleet.reserve(number)  # noqa: E731
            found = runs_on(RpcBoard(device, subject, place, progress, reserve), workload, subject, goldens)
            return {**figures(workload, subject, found), **told(found)}

        with _fleet(device) as fleet, ThreadPoolExecutor(device.count) as threads:
            boards = list(threads.map(measured, range(device.count)))
    return {
        **described(device, workload, subject),
        "device": {
            "kind": device.kind,
            "name": device.name,
            "emulated": any(board["emulated"] for board in boards),
            "count": device.count,
        },
        "target": target.name,
        "boards": {board.pop("servers")[0]: board for board in boards},
        "spread": spread_of(boards),
        "mismatches": {key: sum(board["mismatches"][key] for board in boards) for key in boards[0]["mismatches"]},
    }


def spread_of(boards: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Every time and rate that all boards have, by its name (of parts: "part/name"): smallest, median, largest, and the
    distance of the ends as a share of the median."""
    found: dict[str, Any] = {}
    for name in _numbers(boards[0]):
        values = [_numbers(board).get(name) for board in boards]
        known = [value for value in values if value is not None]
        if len(known) == len(boards):
            middle = statistics.median(known)
            found[name] = {
                "min": min(known),
                "median": middle,
                "max": max(known),
                "spread": round((max(known) - min(known)) / middle, 4),
            }
    return found


def _numbers(entry: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Times and rates of an entry and of the parts in it."""
    found: dict[str, float] = {}
    for key, value in entry.items():
        if isinstance(value, dict) and key not in ("mismatches", "described"):
            found |= _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, float) and ("us_per" in key or "per_second" in key or key == "real_time_factor"):
            found[prefix + key] = value
    return found


class Fleet:
    """Which board has which device of the tracker, from its first session to its last.

    The tracker hands out any free device.  One that belongs to another board is kept for that board's next session; one
    that belongs to none is kept to the end, so that it is not offered again.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._owned: dict[int, tuple[str, int]] = {}
        self._kept: list[Reserved] = []

    def reserve(self, board: int) -> Reserved:
        """What the next session of a board, a number, is to connect to."""
        with self._lock:
            while True:
                for reserved in self._kept:
                    if self._suits(board, reserved):
                        self._kept.remove(reserved)
                        self._owned[board] = reserved[:2]
                        return reserved
                self._kept.append(_asked(self._device))

    def _suits(self, board: int, reserved: Reserved) -> bool:
        address = reserved[:2]
        return address == self._owned[board] if board in self._owned else address not in self._owned.values()

    def let_go(self) -> None:
        """A session with each device that is kept, after which the tracker may hand it out again."""
        for reserved in self._kept:
            with suppress(DeviceError):
                session.run_job(self._device, {"library": None, "reserved": reserved})


@contextmanager
def _fleet(device: Device) -> Iterator[Fleet]:
    assert device.host is not None  # a tracker has an address
    assert device.port is not None
    try:
        known = registered(device.host, device.port, device.key, device.timeout)
    except RefusedError as error:
        raise DeviceError(f"{device.name}: {error}") from None
    if known < device.count:
        raise DeviceError(f"{device.name}: device.count={device.count}, but it has {known} such devices; lower it")
    fleet = Fleet(device)
    try:
        yield fleet
    finally:
        fleet.let_go()


def _asked(device: Device) -> Reserved:
    assert device.host is not None
    assert device.port is not None
    try:
        return ask_tracker(device.host, device.port, device.key, device.timeout)
    except RefusedError as error:
        raise DeviceError(f"{device.name}: {error}") from None
