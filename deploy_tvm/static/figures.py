"""``bench --static``: instructions of a step under emulation, and a model's cycles of its inner kernels."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from deploy_tvm.artefact.golden import Golden
from deploy_tvm.artefact.inputs import random_inputs
from deploy_tvm.bench.measure import FLOAT, INTEGER, Progress
from deploy_tvm.bench.rounds import now
from deploy_tvm.bench.subject import weight_bytes
from deploy_tvm.static import bare
from deploy_tvm.static.emulated_peers import peer_instructions
from deploy_tvm.static.mca import CORES, cycles_per_step, find_tool, tool_version
from deploy_tvm.targets import Target, machine
from irnn.errors import IrnnError
from irnn.program import Program

COMPARED_STEPS = 16


def static_figures(
    integer: Program,
    floating: Program | None,
    target: Target,
    steps: int,
    against: tuple[str, ...] = (),
    peers_python: str | None = None,
    progress: Progress = lambda text: None,
) -> dict[str, Any]:
    """Instructions per time step on ``target``, one step a call and ``steps`` steps a call; cycles by core.

    An attention looks at ``steps`` places.  The integer program is compared with the interpreter on the way.
    ``against``: keys of ``deploy_tvm.peers.PEERS``, counted under the same emulator, one step a call.  The result is
    JSON-ready.
    """
    if target.mtriple.split("-")[0] not in ("aarch64", "armv7a"):
        raise IrnnError(f"--static is for ARM targets, not {target.name}: for example target=cortex_a76")
    tool = find_tool()
    others: dict[str, float] = {}
    absent: dict[str, str] = {}
    versions: dict[str, str] = {}
    if against:
        if floating is None:
            raise IrnnError("--against needs the float program, of which the other runtimes' models are made: --float")
        others, absent, versions = peer_instructions(floating, target, against, peers_python, 1, progress)
    programs = {INTEGER: integer} | ({} if floating is None else {FLOAT: floating})
    single, sequence = {}, {}
    mismatches = {"count": 0, "compared": 0}
    for name, program in programs.items():
        progress(f"counting the instructions of {name}")
        with tempfile.TemporaryDirectory(prefix="irnn-static-") as folder:
            function, constants = bare.program_function(program, target, Path(folder))
            if name == INTEGER:
                mismatches = _compare(program, function, constants)
            single[name], sequence[name] = (_per_step(program, function, constants, n, steps) for n in (1, steps))
    cycles = {}
    for name, program in programs.items():
        progress(f"modelling the kernels of {name}")
        cycles[name] = {core: cycles_per_step(program, CORES[core], steps) for core in CORES}
    read = {name: weight_bytes(program) for name, program in programs.items()}
    return {
        "kind": "static",
        "target": target.name,
        "kernels": target.kernels().name,
        "emulated": True,
        "instructions_per_step": {**single, **others},
        "absent": absent,
        "sequence": {"steps": steps, "instructions_per_step": sequence},
        "mca_cycles_per_step": cycles[INTEGER],
        "mca_cycles_per_step_float": cycles.get(FLOAT),
        "memory": {
            core: {
                "board": described.memory,
                "bytes_per_second": described.bandwidth,
                "us_per_step": {name: count / described.bandwidth * 1e6 for name, count in read.items()},
            }
            for core, described in CORES.items()
        },
        "weight_bytes": read,
        "mismatches": mismatches,
        "versions": machine.versions()
        | versions
        | {"qemu": bare.emulator_version(bare.emulator(target)), "llvm-mca": tool_version(tool)},
        "measured": now(),
    }


def _per_step(
    program: Program, function: bare.BareFunction, constants: list[np.ndarray], steps: int, places: int
) -> float:
    inputs = random_inputs(program, {"time": steps, "memory": places})
    return function.instructions(*bare.arguments(program, constants, inputs, program.initial_state(1))) / steps


def _compare(program: Program, function: bare.BareFunction, constants: list[np.ndarray]) -> dict[str, int]:
    golden = Golden.of(program, random_inputs(program, {"time": COMPARED_STEPS, "memory": COMPARED_STEPS}))
    arguments = bare.arguments(program, constants, golden.inputs, program.initial_state(1))
    return golden.compare("the built program", *bare.results(program, function(*arguments))).figures()
