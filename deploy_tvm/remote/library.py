"""One library on a device: built for it, run there on golden inputs, timed."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy_tvm.artefact.artefact import MANIFEST, build, read_manifest, sha256
from deploy_tvm.artefact.inputs import by_steps
from deploy_tvm.codegen.interface import ENTRY
from deploy_tvm.remote import session
from deploy_tvm.remote.device import Device
from deploy_tvm.targets import Target, from_config, toolchain
from irnn.program import Program

STEPS_A_CALL = 16

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Built:
    """A program and its library for a device; ``name`` for messages and file names."""

    name: str
    program: Program
    library: Path


@dataclass(frozen=True)
class Found:
    """What a library did on a device.

    us: microseconds of a timed call, by measurement: of one time step where the program can make single steps.
    emulated: its times are an emulator's.  described: what the device's server tells of it, None where it is TVM's own.
    server: the address that a tracker gave, None without a tracker.
    """

    outputs: list[np.ndarray]
    states: list[np.ndarray]
    us: list[float]
    memory_peak: str | None
    emulated: bool
    described: dict[str, Any] | None
    server: str | None

    @property
    def median_us(self) -> float:
        return statistics.median(self.us)

    def times(self, unit: str, count: int = 1) -> dict[str, float]:
        """Median and 95th percentile for a ``unit`` (a word), of which a timed call makes so many."""
        p95 = float(np.percentile(self.us, 95))
        return {f"us_per_{unit}": round(self.median_us / count, 3), f"p95_us_per_{unit}": round(p95 / count, 3)}


# Runs a library on the device of a benchmark, on inputs by name.
Run = Callable[[Built, dict[str, np.ndarray]], Found]


def build_for(target: Target, name: str, program: Program, folder: Path, scratch: Path) -> Built:
    """The library of ``program``: that of the artefact ``folder``, where it is one for ``target``, or a new one."""
    if (folder / MANIFEST).exists():
        manifest = read_manifest(folder, run_here=False)
        if from_config(manifest["target"]) == target.resolve():
            return Built(name, program, folder / manifest["library"])
    build(program, scratch, target)
    return Built(name, program, scratch / read_manifest(scratch, run_here=False)["library"])


def run_library(
    device: Device, built: Built, inputs: dict[str, np.ndarray], scratch: Path, progress: Progress
) -> Found:
    """Upload a library, run the inputs ``[1, ...]`` through it from the initial state, time it."""
    program, state = built.program, built.program.initial_state(1)
    stem = built.name.replace(" ", "-")
    given, results = scratch / f"{stem}-inputs.npz", scratch / f"{stem}-outputs.npz"
    arrays = {f"input_{k}": inputs[name] for k, name in enumerate(program.inputs)}
    np.savez(given, **arrays, **{f"state_{k}": array for k, array in enumerate(state.values())})
    walked = ["time" in value.axes for value in program.inputs.values()]
    steps = next(inputs[name].shape[1] for name, along in zip(program.inputs, walked, strict=True) if along)
    job = {
        "library": str(built.library),
        "sha256": sha256(built.library),
        "machine": _machine(built.library),
        "entry": ENTRY,
        "inputs": str(given),
        "walked": walked,
        "states": len(state),
        "outputs": str(results),
        "steps": steps,
        # What looks ahead, or gives one result for a sequence, needs it whole.
        "steps_a_call": STEPS_A_CALL if by_steps(program) else steps,
        "timed_steps": 1 if by_steps(program) else steps,
    }
    reply = session.run_job(device, job, lambda stage: progress(f"{device.name}, {built.name}: {stage}"))
    # A server elsewhere may run under an emulator too; ours says so.
    emulated = device.emulated or bool((reply["device"] or {}).get("emulated"))
    with np.load(results, allow_pickle=False) as found:
        outputs = [found[f"output_{k}"] for k in range(len(program.outputs))]
        states = [found[f"state_{k}"] for k in range(len(state))]
    # No memory under emulation: it would be the emulator's.
    peak = None if emulated else reply["memory_peak"]
    return Found(outputs, states, reply["us"], peak, emulated, reply["device"], reply["server"])


def _machine(library: Path) -> str:
    """The machine that a library is for, as ``uname`` calls it."""
    names = {number: name for name, number in toolchain.ELF_MACHINES.items()}
    return names[toolchain.elf_machine(library)]
