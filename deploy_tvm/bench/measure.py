"""One measurement: the workers of all runtimes, compared, then timed in interleaved rounds."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy_tvm.artefact.artefact import read_manifest
from deploy_tvm.artefact.inputs import random_inputs
from deploy_tvm.bench import floor
from deploy_tvm.bench.rounds import Worker, WorkerError, interleave, now, summary
from deploy_tvm.peers import peers
from deploy_tvm.peers.recurrent_stack import save_job
from deploy_tvm.targets import kernel_sets, machine
from irnn.errors import IrnnError
from irnn.program import Program

INTEGER, FLOAT = "tvm_integer", "tvm_float"
# A float peer that is further from our float build than this computes something else; logits reach a few tens.
FLOAT_TOLERANCE = 2e-3
MAX_SECONDS = 600
MAX_BATCH = 1024
_READ, _PEAK, _TILES = "floor_read", "floor_peak", "floor_tiles"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """How it is measured.  seconds: for each runtime, all rounds together.  against: keys of ``peers.PEERS``.

    batch: sequences a call.  core: everything is pinned to it; None: the first one allowed.
    """

    rounds: int = 20
    seconds: float = 4.0
    threads: int = 1
    against: tuple[str, ...] = ()
    peers_python: str | None = None
    core: int | None = None
    batch: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= MAX_BATCH:
            raise IrnnError(f"--batch {self.batch}: must lie in 1 to {MAX_BATCH}")
        if self.rounds < 1:
            raise IrnnError(f"--rounds {self.rounds}: must be at least 1")
        if not 0 < self.seconds <= MAX_SECONDS:
            raise IrnnError(f"--seconds {self.seconds}: must be more than 0 and at most {MAX_SECONDS}")
        if self.threads != 1:
            raise IrnnError(f"--threads {self.threads}: our kernels run on one thread; give 1")
        peers.interpreter(self.peers_python)


@dataclass(frozen=True)
class Case:
    """One call that is measured.

    artefacts: built programs, ``tvm_integer`` first.  inputs: what the integer program reads, by name, batch first;
    ``float_inputs`` the float one and the other runtimes.  function: "step" (one input, one time step) or "run".
    steps: what the figures are divided by, as by the sequences.  floating: what the peers' models are made from.
    """

    integer: Program
    floating: Program | None
    artefacts: dict[str, Path]
    inputs: dict[str, np.ndarray]
    float_inputs: dict[str, np.ndarray]
    function: str = "run"
    steps: int = 1

    @classmethod
    def random(
        cls,
        integer: Program,
        floating: Program | None,
        artefacts: dict[str, Path],
        sizes: dict[str, int],
        function: str = "run",
        steps: int = 1,
        batch: int = 1,
    ) -> Case:
        """A case with random inputs; ``sizes`` are those of their axes."""
        theirs = {} if floating is None else random_inputs(floating, sizes, batch=batch)
        # A float build without its program beside it reads ids, as ours does.
        inputs = random_inputs(integer, sizes, batch=batch)
        return cls(integer, floating, artefacts, inputs, theirs or inputs, function, steps)

    @property
    def batch(self) -> int:
        """Sequences a call."""
        return len(next(iter(self.inputs.values())))

    @property
    def kernels(self) -> str:
        """The set that the integer program was built with."""
        return read_manifest(self.artefacts[INTEGER])["kernels"]

    def own_input(self, name: str) -> dict[str, np.ndarray]:
        """What the artefact ``name`` reads."""
        return self.inputs if name == INTEGER else self.float_inputs

    def peer_input(self) -> np.ndarray | dict[str, np.ndarray]:
        """What the other runtimes read: of one input its array, time first as their LSTMs have it."""
        if len(self.float_inputs) > 1:
            return self.float_inputs
        (x,) = self.float_inputs.values()
        return np.ascontiguousarray(x.transpose(1, 0, 2)) if x.ndim == 3 else x.T.astype(np.int64)

    def work(self) -> floor.Work | None:
        """What a call cannot avoid; None: no limit is known where loops read their weights one after the other."""
        if len(self.inputs) > 1:
            return None
        kernels = kernel_sets.host(self.kernels).kernels() if self.kernels in floor.TILED else None
        return floor.work(self.integer, self.steps, self.batch, kernels)


def measure(case: Case, settings: Settings, progress: Progress) -> dict[str, Any]:
    """Time a case in all runtimes: ``us`` (medians a step and sequence, None where there is a reason), spread, floor,
    machine; ``gb_per_s`` is what our time means for the weights that have to be read."""
    core = machine.default_core() if settings.core is None else settings.core
    with tempfile.TemporaryDirectory(prefix="irnn-bench-") as temporary, ExitStack() as stack:
        kernels = case.kernels
        needed = case.work()
        commands = _commands(case, kernels, needed, settings, Path(temporary), core)
        reasons: dict[str, str] = {}
        workers: dict[str, Worker] = {}
        ready: dict[str, dict[str, Any]] = {}
        differences: dict[str, float] = {}
        for name, command in commands.items():
            progress(f"starting {name}")
            worker = stack.enter_context(Worker(command, Path(temporary) / f"{name}.log"))
            try:
                ready[name] = worker.start()
                if name in settings.against and FLOAT in workers:
                    differences |= _difference(name, worker.output(), workers[FLOAT].output())
                workers[name] = worker
            except WorkerError as error:
                if name in case.artefacts:
                    raise IrnnError(f"the built program cannot be timed: {error}") from error
                reasons[name] = peers.absent_reason(name, str(error)) if error.absent else str(error)
        before = machine.describe()
        times, failed = interleave(
            workers, settings.rounds, settings.seconds, lambda done: progress(f"round {done} of {settings.rounds}")
        )
    if INTEGER in failed:
        raise IrnnError(f"the built program cannot be timed: {failed[INTEGER]}")
    reasons |= failed
    limits = {name: _limit(times.pop(name), ready[name]) for name in (_READ, _PEAK, _TILES) if name in times}
    spread = {name: summary(blocks, case.steps * case.batch) for name, blocks in times.items()}
    us = {name: spread[name]["median"] if name in spread else None for name in (*case.artefacts, *settings.against)}
    ours = spread[INTEGER]["median"]
    found = {name: reply for name, reply in ready.items() if name in us}
    return {
        "us": us,
        "kernels": kernels,
        "batch": case.batch,
        "ratios": {
            f"{INTEGER}/{name}": round(ours / value, 4)
            for name, value in us.items()
            if value is not None and name != INTEGER
        },
        "spread": spread,
        "reasons": {name: reason for name, reason in reasons.items() if name in us},
        "max_difference_from_float": differences,
        "chosen": {name: reply["setting"] for name, reply in found.items() if reply["setting"]},
        "floor": floor.combine(needed, ours, limits.get(_READ), limits.get(_PEAK), limits.get(_TILES)),
        "gb_per_s": None if needed is None else round(needed.bytes_a_second(ours) / 1e9, 2),
        "versions": machine.versions() | {k: v for reply in found.values() for k, v in reply["versions"].items()},
        "cpu": before["cpu"],
        "machine": before | {"core": core},
        "measured": now(),
    }


def _commands(
    case: Case, kernels: str, needed: floor.Work | None, settings: Settings, folder: Path, core: int | None
) -> dict[str, list[str]]:
    """Worker commands by name: ours first, since the peers are compared with them."""
    commands = {}
    for name, artefact in case.artefacts.items():
        inputs = folder / f"{name}-inputs.npz"
        np.savez(inputs, **case.own_input(name))  # type: ignore[arg-type]  # to NumPy's stub one may be `allow_pickle`
        job = {"kind": "program", "artefact": str(artefact), "inputs": str(inputs), "function": case.function}
        commands[name] = _own_command(job, core)
    if settings.against:
        assert case.floating is not None  # `bench` asks for it
        save_job(case.floating, case.peer_input(), folder)
        python = peers.interpreter(settings.peers_python)
        commands |= {key: peers.command(key, python, folder, core) for key in settings.against}
    if needed is None:
        return commands
    commands[_READ] = _own_command({"kind": "read", "size": needed.bytes_read, "kernels": kernels}, core)
    if kernels in floor.PRODUCTS:
        commands[_PEAK] = _own_command({"kind": "peak", "kernels": kernels}, core)
    if kernels in floor.TILED:
        commands[_TILES] = _own_command({"kind": "tiles", "kernels": kernels}, core)
    return commands


def prefixed(progress: Progress, name: str) -> Progress:
    """The same progress, each line with what it is about in front."""
    return lambda text: progress(f"{name}: {text}")


def _own_command(job: dict[str, Any], core: int | None) -> list[str]:
    return [sys.executable, "-m", "deploy_tvm.bench.tvm_worker", json.dumps(job), "" if core is None else str(core)]


def _difference(name: str, output: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Largest difference of a peer from our float build; float32 peers that compute something else are refused."""
    if output.size != reference.size:
        raise WorkerError(f"it gives {output.size} outputs where the float build gives {reference.size}")
    difference = float(np.abs(output.ravel() - reference.ravel()).max())
    if name.endswith("_fp32") and not difference <= FLOAT_TOLERANCE:
        raise WorkerError(f"it computes something else than the float build: outputs differ by up to {difference:.3g}")
    return {name: difference}


def _limit(blocks: list[list[float]], ready: dict[str, Any]) -> float:
    """Microseconds of one repetition inside the calls of a loop that measures a limit."""
    return summary(blocks, 1)["median"] / int(ready["setting"])
