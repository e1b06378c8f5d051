"""A program on a device: the same integers as the interpreter's, and how long they take beside the float build."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from deploy_tvm import machine, toolchain
from deploy_tvm.artefact import MANIFEST, build, open_program, read_manifest, sha256
from deploy_tvm.bench import float_folder_of
from deploy_tvm.inputs import random_input
from deploy_tvm.lower import ENTRY
from deploy_tvm.remote import emulated, session
from deploy_tvm.remote.bare_board import run_bundle
from deploy_tvm.remote.device import Device
from deploy_tvm.remote.serve import reachable
from deploy_tvm.rounds import now
from deploy_tvm.targets import Target, from_config
from irnn.errors import IrnnError
from irnn.program import Program

STEPS_A_CALL = 16
MAX_TOKENS = 1_000_000
SETTINGS = ("number", "repeat", "warmup", "cooldown", "core")

Progress = Callable[[str], None]


def bench_device(
    folder: Path, float_folder: str | None, target: Target, device: Device, tokens: int, progress: Progress
) -> dict[str, Any]:
    """Measure a program or an artefact (``folder``) on ``device``; the result is JSON-ready.

    An artefact for another target is built anew; a 32-bit board runs a bundle, without a float program beside it.  The
    float program is ``float_folder``, or the first of ``FLOAT_FOLDERS`` that stands beside ``folder``.  tokens: length
    of the golden sequence that is compared.
    """
    if not 1 <= tokens <= MAX_TOKENS:
        raise IrnnError(f"--tokens {tokens}: must lie in 1 to {MAX_TOKENS}")
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="irnn-bench-")))
        progress(f"compiling for {target.name}")
        if device.cpu == emulated.CPU32:
            calls = device.number * device.repeat
            entry = run_bundle(folder, target, device.cpu, tokens, calls, scratch)
            return _result(device, target, tokens, entry, None)
        floats = float_folder_of(folder, float_folder)
        integer, built = _built(folder, "integer", target, scratch / "integer")
        floating = None
        if floats is not None:
            floating = _built(floats, "float", target, scratch / "float")
        progress(f"starting {device.name}" if device.emulated else f"connecting to {device.name}")
        board = stack.enter_context(reachable(device))
        x = random_input(integer, tokens)
        progress("running the interpreter")
        expected = integer.run(x)
        found, ours = _run(board, integer, built, x, scratch, progress)
        entry = {"mismatches": compare(integer, expected, found), **ours}
        if floating is not None:
            program, library = floating
            _, theirs = _run(board, program, library, random_input(program, tokens), scratch, progress)
            entry["float"] = theirs
            if not ours["emulated"]:
                entry["speed_up"] = round(theirs["us_per_token"] / ours["us_per_token"], 3)
    described = entry.pop("device")
    entry.get("float", {}).pop("device", None)
    return _result(device, target, tokens, entry, described)


def _result(
    device: Device, target: Target, tokens: int, entry: dict[str, Any], described: dict[str, Any] | None
) -> dict[str, Any]:
    return {
        "kind": "device",
        "device": {"kind": device.kind, "name": device.name, "emulated": entry["emulated"], "described": described},
        "tokens": tokens,
        "settings": {name: getattr(device, name) for name in SETTINGS},
        "targets": {target.name: entry},
        "mismatches": entry["mismatches"],
        "versions": machine.versions(),
        "measured": now(),
    }


def compare(
    program: Program, expected: tuple[np.ndarray, dict[str, np.ndarray]], found: dict[str, np.ndarray]
) -> dict[str, int]:
    """Integers, outputs and last states, that differ from the interpreter's."""
    output, states = expected
    pairs = [(output, found["y"])]
    pairs += [(states[name], found[f"state_{k}"]) for k, name in enumerate(program.states)]
    for wanted, got in pairs:
        if wanted.shape != got.shape or wanted.dtype != got.dtype:
            raise IrnnError(f"the device gave {got.dtype}{got.shape}, the interpreter {wanted.dtype}{wanted.shape}")
    return {"count": sum(int((a != b).sum()) for a, b in pairs), "compared": sum(a.size for a, _ in pairs)}


def _run(
    device: Device, program: Program, library: Path, x: np.ndarray, scratch: Path, progress: Progress
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(outputs and last states, times and sizes) of one library on the device."""
    state = program.initial_state(1)
    inputs, outputs = scratch / f"{program.kind}-inputs.npz", scratch / f"{program.kind}-outputs.npz"
    np.savez(inputs, x=x, **{f"state_{k}": array for k, array in enumerate(state.values())})
    timed_steps = 1 if program.streaming else x.shape[1]
    job = {
        "library": str(library),
        "sha256": sha256(library),
        "machine": _machine(library),
        "entry": ENTRY,
        "inputs": str(inputs),
        "outputs": str(outputs),
        "states": [f"state_{k}" for k in range(len(state))],
        # A program that runs backwards in time needs its whole sequence at once.
        "steps_a_call": STEPS_A_CALL if program.streaming else x.shape[1],
        "timed_steps": timed_steps,
    }
    reply = session.run_job(device, job, lambda stage: progress(f"{device.name}, {program.kind}: {stage}"))
    us = [value / timed_steps for value in reply["us"]]
    median = statistics.median(us)
    # A server elsewhere may run under an emulator too; ours says so.
    emulated_there = device.emulated or bool((reply["device"] or {}).get("emulated"))
    result = {
        "us_per_token": round(median, 3),
        "p95_us_per_token": round(float(np.percentile(us, 95)), 3),
        # No rate, ratio or memory under emulation: they would be the emulator's.
        "tokens_per_second": None if emulated_there else round(1e6 / median, 1),
        "bytes": library.stat().st_size,
        "memory_peak": None if emulated_there else reply["memory_peak"],
        "emulated": emulated_there,
        "device": reply["device"],
    }
    return dict(np.load(outputs, allow_pickle=False)), result


def _built(folder: Path, kind: str, target: Target, scratch: Path) -> tuple[Program, Path]:
    """(program, library for ``target``) of a folder with a program or an artefact."""
    program = open_program(folder, kind)
    if (folder / MANIFEST).exists():
        manifest = read_manifest(folder, run_here=False)
        if from_config(manifest["target"]) == target.resolve():
            return program, folder / manifest["library"]
    build(program, scratch, target)
    return program, scratch / read_manifest(scratch, run_here=False)["library"]


def _machine(library: Path) -> str:
    """The machine that a library is for, as ``uname`` calls it."""
    names = {number: name for name, number in toolchain.ELF_MACHINES.items()}
    return names[toolchain.elf_machine(library)]
