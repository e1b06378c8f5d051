"""An emulated board for which there is no TVM runtime: a program's bundle, unpacked and run under qemu."""

from __future__ import annotations

import re
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy_tvm.artefact.golden import Golden
from deploy_tvm.artefact.inputs import by_steps
from deploy_tvm.bench.measure import Progress
from deploy_tvm.bundle import bundle
from deploy_tvm.remote import emulated
from deploy_tvm.remote.board import Found
from deploy_tvm.remote.device import Device
from deploy_tvm.targets import Target
from irnn.errors import IrnnError
from irnn.program.equality import Comparison

SECONDS = 900
_RESULT = re.compile(
    r"(PASS|FAIL): (\d+) of (\d+) integers differ from the reference \(\d+ steps\)\n"
    r"latency: median ([\d.]+) us, p95 ([\d.]+) us a step"
)


@dataclass(frozen=True)
class BundleBoard:
    """See ``deploy_tvm.remote.board.Board``: integer programs alone, which the bundle's own runner compares."""

    device: Device
    target: Target
    scratch: Path
    progress: Progress

    def __post_init__(self) -> None:
        if self.target.mtriple != emulated.MTRIPLE32:
            raise IrnnError(
                f"target={self.target.name} does not run on an emulated {emulated.CPU32}: leave target= or device.cpu= "
                "out"
            )

    def run(self, runtime: str, part: str, inputs: dict[str, np.ndarray], golden: Golden | None) -> Found:
        """What the runner says; nothing but its counts and times comes back."""
        if golden is None:
            raise IrnnError(f"{self.device.name} takes bundles of integer programs alone")
        self.progress(f"{self.device.name}, {part or 'program'}: compiling and running the bundle")
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            archive = Path(folder) / "bundle.tar.gz"
            bundle.write({"": golden}, self.target, archive)
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
            content = Path(folder) / "bundle"
            count, compared, *times = self._execute(content / "runner")
            # Other libraries hold their constants.
            size = (content / "library.so").stat().st_size + (content / "parameters.bin").stat().st_size
        differing = {part or "the program": int(count)} if int(count) else {}
        # The runner divides a call's time by its steps.
        median, p95 = (float(us) * (1 if by_steps(golden.program) else golden.steps) for us in times)
        return Found(median, p95, size, None, True, Comparison(int(compared), differing))

    def _execute(self, runner: Path) -> tuple[str, ...]:
        """(integers that differ, integers compared, median, 95th percentile of the microseconds a step)."""
        cpu = emulated.CPU32
        command = [*emulated.command(cpu), str(runner), str(self.device.number * self.device.repeat)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise IrnnError(f"the bundle on the emulated {cpu} did not end within {SECONDS} s") from None
        found = _RESULT.search(done.stdout)
        if found is None:
            reason = (done.stderr.strip().splitlines() or [f"code {done.returncode}"])[-1]
            raise IrnnError(f"the bundle on the emulated {cpu} failed: {reason}")
        return found.groups()[1:]
