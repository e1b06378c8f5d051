"""A program on an emulated board for which there is no TVM runtime: its bundle, unpacked and run under qemu."""

from __future__ import annotations

import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from deploy_tvm.bundle.bundle import bundle
from deploy_tvm.remote import emulated
from deploy_tvm.targets import Target
from irnn.errors import IrnnError

SECONDS = 900
_RESULT = re.compile(
    r"(PASS|FAIL): (\d+) of (\d+) integers differ from the reference \(\d+ steps\)\n"
    r"latency: median ([\d.]+) us, p95 ([\d.]+) us a step"
)


def run_bundle(folder: Path, target: Target, cpu: str, tokens: int, calls: int, scratch: Path) -> dict[str, Any]:
    """What the bundle's runner says of the program in ``folder``: mismatches and emulated microseconds a token.

    tokens: length of the golden sequence.  calls: how many are timed.  scratch: a folder for the bundle.
    """
    if target.mtriple != emulated.mtriple_of(cpu):
        raise IrnnError(f"target={target.name} does not run on an emulated {cpu}: leave target= or device.cpu= out")
    archive = scratch / "bundle.tar.gz"
    bundle(folder, target, archive, tokens)
    with tarfile.open(archive) as tar:
        tar.extractall(scratch, filter="data")
    content = scratch / "bundle"
    command = [*emulated.command(cpu), str(content / "runner"), str(calls)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise IrnnError(f"the bundle on the emulated {cpu} did not end within {SECONDS} s") from None
    found = _RESULT.search(done.stdout)
    if found is None:
        reason = (done.stderr.strip().splitlines() or [f"code {done.returncode}"])[-1]
        raise IrnnError(f"the bundle on the emulated {cpu} failed: {reason}")
    _, count, compared, median, p95 = found.groups()
    return {
        "mismatches": {"count": int(count), "compared": int(compared)},
        "us_per_token": float(median),
        "p95_us_per_token": float(p95),
        "tokens_per_second": None,
        # Other libraries hold their constants.
        "bytes": (content / "library.so").stat().st_size + (content / "parameters.bin").stat().st_size,
        "memory_peak": None,
        "emulated": True,
    }
