"""A device that is reached over RPC: libraries are uploaded, run there on golden inputs, timed by its own clock."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy_tvm.artefact.artefact import read_manifest, sha256
from deploy_tvm.artefact.golden import Golden, steps_of
from deploy_tvm.artefact.inputs import by_steps
from deploy_tvm.bench.measure import Progress
from deploy_tvm.bench.subject import Subject
from deploy_tvm.codegen.interface import ENTRY
from deploy_tvm.remote import session
from deploy_tvm.remote.board import Found
from deploy_tvm.remote.device import Device
from deploy_tvm.targets import toolchain

STEPS_A_CALL = 16
# (host, port, key of one session)
Reserved = tuple[str, int, str]


@dataclass(frozen=True)
class RpcBoard:
    """See ``deploy_tvm.remote.board.Board``.  scratch: a folder for what goes to the device and comes back.  reserve:
    gives what the tracker has said of the device for the next session; None: a session asks for one by itself."""

    device: Device
    subject: Subject
    scratch: Path
    progress: Progress
    reserve: Callable[[], Reserved] | None = None

    def run(self, runtime: str, part: str, inputs: dict[str, np.ndarray], golden: Golden | None) -> Found:
        """A session with the device."""
        name = f"{runtime.removeprefix('tvm_')} {part}".strip()
        program, folder = self.subject.programs(runtime)[part], self.subject.artefacts[runtime][part]
        library = folder / read_manifest(folder, run_here=False)["library"]
        state = program.initial_state(1)
        stem = name.replace(" ", "-")
        given, results = self.scratch / f"{stem}-inputs.npz", self.scratch / f"{stem}-outputs.npz"
        arrays: dict[str, Any] = {f"input_{k}": inputs[name] for k, name in enumerate(program.inputs)}
        arrays |= {f"state_{k}": array for k, array in enumerate(state.values())}
        np.savez(given, **arrays)
        steps = steps_of(program, inputs)
        job = {
            "library": str(library),
            "sha256": sha256(library),
            "machine": _machine(library),
            "entry": ENTRY,
            "inputs": str(given),
            "walked": ["time" in value.axes for value in program.inputs.values()],
            "states": len(state),
            "outputs": str(results),
            "steps": steps,
            # What looks ahead, or gives one result for a sequence, needs it whole.
            "steps_a_call": STEPS_A_CALL if by_steps(program) else steps,
            "timed_steps": 1 if by_steps(program) else steps,
            "reserved": None if self.reserve is None else self.reserve(),
        }
        reply = session.run_job(self.device, job, lambda stage: self.progress(f"{self.device.name}, {name}: {stage}"))
        # A server elsewhere may run under an emulator too; ours says so.
        emulated = self.device.emulated or bool((reply["device"] or {}).get("emulated"))
        with np.load(results, allow_pickle=False) as found:
            outputs = [found[f"output_{k}"] for k in range(len(program.outputs))]
            states = [found[f"state_{k}"] for k in range(len(state))]
        who = f"the device's {part}" if part else "the device"
        return Found(
            median_us=statistics.median(reply["us"]),
            p95_us=float(np.percentile(reply["us"], 95)),
            size=library.stat().st_size,
            # No memory under emulation: it would be the emulator's.
            memory_peak=None if emulated else reply["memory_peak"],
            emulated=emulated,
            mismatches=None if golden is None else golden.compare(who, outputs, states),
            outputs=outputs,
            described=reply["device"],
            server=reply["server"],
        )


def _machine(library: Path) -> str:
    """The machine that a library is for, as ``uname`` calls it."""
    names = {number: name for name, number in toolchain.ELF_MACHINES.items()}
    return names[toolchain.elf_machine(library)]
