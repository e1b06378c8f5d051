"""Programs on a device: the same integers as the interpreter's, and how long they take beside the float build."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from deploy_tvm.artefact.artefact_set import open_parts
from deploy_tvm.artefact.golden import Golden
from deploy_tvm.bench.measure import FLOAT, INTEGER, Progress
from deploy_tvm.bench.rounds import now
from deploy_tvm.bench.subject import Subject, opened
from deploy_tvm.remote.board import Board, Found
from deploy_tvm.remote.bundle_board import BundleBoard
from deploy_tvm.remote.device import Device
from deploy_tvm.remote.emulated import CPU32
from deploy_tvm.remote.rpc_board import RpcBoard
from deploy_tvm.remote.server.serve import reachable
from deploy_tvm.remote.workload import Lengths, Workload
from deploy_tvm.targets import Target, machine
from irnn.program import equality

SETTINGS = ("number", "repeat", "warmup", "cooldown", "core")


def bench_device(
    folder: Path, float_folder: str | None, target: Target, device: Device, lengths: Lengths, progress: Progress
) -> dict[str, Any]:
    """Measure programs or artefacts (``folder``) on ``device``; the result is JSON-ready.

    Whatever the folder holds is measured part by part; ``timed`` in the result is what a part's times are times of.
    ``device.servers``: the addresses that a tracker gave, one session after the other.  Artefacts for another target
    are built anew; a 32-bit board runs bundles, without a float program beside them.  The float model is in
    ``float_folder``, or in the first of ``FLOAT_FOLDERS`` that stands beside ``folder``.
    """
    programs = open_parts(folder)
    workload = lengths.workload(folder, programs)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="irnn-bench-")))
        board: Board
        if device.cpu == CPU32:
            board = BundleBoard(device, target, scratch, progress)
            subject = Subject(str(folder), programs, None, {})
        else:
            subject = opened(folder, float_folder, scratch, progress, target)
            progress(f"starting {device.name}" if device.emulated else f"connecting to {device.name}")
            board = RpcBoard(stack.enter_context(reachable(device)), subject, scratch, progress)
        found = runs_on(board, workload, subject, golden_runs(workload, subject, progress))
    entry = figures(workload, subject, found)
    return {
        **described(device, workload, subject),
        "device": {"kind": device.kind, "name": device.name, **told(found), "emulated": entry["emulated"]},
        "targets": {target.name: entry},
        "mismatches": entry["mismatches"],
    }


def described(device: Device, workload: Workload, subject: Subject) -> dict[str, Any]:
    """What is measured, and how."""
    units = {part: workload.unit(part, program)[0] for part, program in subject.integer.items()}
    return {
        "kind": workload.kind,
        **workload.described,
        "timed": units.get("", units),
        "settings": {name: getattr(device, name) for name in SETTINGS},
        "versions": machine.versions(),
        "measured": now(),
    }


def told(found: Mapping[str, Mapping[str, Found]]) -> dict[str, Any]:
    """What a device's server told of it, and which servers there were."""
    runs = [run for parts in found.values() for run in parts.values()]
    servers = list(dict.fromkeys(run.server for run in runs if run.server is not None))
    return {"described": runs[0].described, "servers": servers}


def runs_on(
    board: Board, workload: Workload, subject: Subject, goldens: Mapping[str, Golden]
) -> dict[str, dict[str, Found]]:
    """What a board makes of all parts, by runtime."""
    found = {INTEGER: {part: board.run(INTEGER, part, golden.inputs, golden) for part, golden in goldens.items()}}
    return found if subject.floating is None else found | {FLOAT: _float_runs(workload, subject, board)}


def golden_runs(workload: Workload, subject: Subject, progress: Progress) -> dict[str, Golden]:
    """What the interpreter makes of each part's inputs.  A part reads what the interpreter's others gave, whatever the
    device's gave: one that is wrong is not blamed on the next."""
    progress("running the interpreter")
    goldens: dict[str, Golden] = {}
    for part, program in subject.integer.items():
        outputs = {name: golden.outputs for name, golden in goldens.items()}
        goldens[part] = Golden.of(program, workload.inputs(part, subject.integer, outputs))
    return goldens


def _float_runs(workload: Workload, subject: Subject, board: Board) -> dict[str, Found]:
    """The float builds, each on what the device's others gave."""
    programs, found = subject.programs(FLOAT), {}
    outputs: dict[str, list[np.ndarray]] = {}
    for part in programs:
        found[part] = board.run(FLOAT, part, workload.inputs(part, programs, outputs), None)
        outputs[part] = found[part].outputs
    return found


def figures(workload: Workload, subject: Subject, found: Mapping[str, Mapping[str, Found]]) -> dict[str, Any]:
    """Times, sizes and mismatches of what ran, by runtime and part, as JSON values.

    No rate, ratio or figure of parts together under emulation: they would be the emulator's.
    """
    counts = {part: run.mismatches for part, run in found[INTEGER].items() if run.mismatches is not None}
    entry = {"mismatches": equality.total(counts.values()).figures(), **_build(workload, subject, found, INTEGER)}
    if "" not in counts:
        for part, count in counts.items():
            entry[part]["mismatches"] = count.figures()
    if FLOAT in found:
        entry["float"] = _build(workload, subject, found, FLOAT)
        ours, theirs = (_total(workload, found[runtime]) for runtime in (INTEGER, FLOAT))
        if ours is not None and theirs is not None:
            entry["speed_up"] = round(theirs / ours, 3)
    return entry


def _build(
    workload: Workload, subject: Subject, found: Mapping[str, Mapping[str, Found]], runtime: str
) -> dict[str, Any]:
    parts = {
        part: run.figures(*workload.unit(part, subject.programs(runtime)[part])) for part, run in found[runtime].items()
    }
    figure = workload.figure(_total(workload, found[runtime]))
    emulated = any(run.emulated for run in found[runtime].values())
    if "" in parts:
        return {**parts[""], **figure, "emulated": emulated}
    return {**parts, **figure, "bytes": sum(part["bytes"] for part in parts.values()), "emulated": emulated}


def _total(workload: Workload, found: Mapping[str, Found]) -> float | None:
    """None under emulation, or where the parts make nothing together."""
    if any(run.emulated for run in found.values()):
        return None
    return workload.total({part: run.median_us for part, run in found.items()})
