"""Instructions of other runtimes' steps: their aarch64 wheels under the same emulator and the same counter.

The models are made on this machine by ``peer_worker``; the emulated side is a Python from Debian's packages with the
runtimes' wheels, unpacked below a prefix of qemu's.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from deploy_tvm.bench.measure import Progress
from deploy_tvm.bench.rounds import Worker, WorkerError
from deploy_tvm.peers import peers
from deploy_tvm.peers.recurrent_stack import save_job
from deploy_tvm.remote import emulated
from deploy_tvm.remote.cache import cached
from deploy_tvm.static.bare import counted
from deploy_tvm.targets import Target
from irnn.errors import IrnnError
from irnn.program import Program

SUITE, PYTHON = "bookworm", "3.11"
PACKAGES = "python3-minimal,libpython3-stdlib,python3,libstdc++6,libgcc-s1,libc6,zlib1g,libffi8,libssl3,libexpat1"
WHEELS = {"onnxruntime": "onnxruntime", "litert": "ai-edge-litert"}
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
SCRIPT = Path(__file__).parent / "guest" / "peer.py"
SECONDS = 900
# Calls that are counted: as many as make up for what the start of a Python process varies by.
FEW, MANY = 10, 210
# The file that the worker of a runtime leaves in its job's folder.
MODELS = {
    "onnxruntime_fp32": "onnxruntime_fp32.onnx",
    "onnxruntime_dynamic_int8": "onnxruntime_int8.onnx",
    "litert_fp32": "litert_fp32.tflite",
    "litert_dynamic_int8": "litert_dynamic_int8.tflite",
    "litert_integer_only_int8": "litert_integer_only_int8.tflite",
}


def peer_instructions(
    program: Program, target: Target, keys: tuple[str, ...], python: str | None, steps: int, progress: Progress
) -> tuple[dict[str, float], dict[str, str], dict[str, str]]:
    """(instructions per time step by runtime, reasons for those that have none, the runtimes' versions).

    In calls of ``steps`` steps, from Python: a call of an empty model is a few thousand instructions of them.
    """
    shapes = [value.shape for value in program.inputs.values()]
    if len(shapes) != 1 or len(shapes[0]) != 1:
        raise IrnnError("--static --against compares layers of features: bench --static --layer lstm ...")
    if target.mtriple != emulated.MTRIPLE:
        raise IrnnError(f"--static --against needs an aarch64 target under Linux, not {target.name}")
    for key in keys:
        if key not in MODELS:
            raise IrnnError(f"--against {key.split('_')[0]}: with --static allowed are onnxruntime, litert")
    worker_python = peers.interpreter(python)
    progress("preparing the emulated Python")
    guest = _Guest(emulated.cpu_of(target.mcpu))
    found: dict[str, float] = {}
    absent: dict[str, str] = {}
    versions: dict[str, str] = {}
    x = np.random.default_rng(1).standard_normal((steps, 1, *shapes[0])).astype(np.float32)
    for key in keys:
        progress(f"counting the instructions of {key}")
        with tempfile.TemporaryDirectory(prefix="irnn-static-") as job:
            try:
                save_job(program, x, Path(job))
                found[key] = guest.count(_model(key, worker_python, Path(job))) / steps
                versions |= guest.version_of(key)
            except WorkerError as error:
                absent[key] = peers.absent_reason(key, str(error)) if error.absent else str(error)
            except IrnnError as error:
                absent[key] = str(error)
    return found, absent, versions


def _model(key: str, python: str, job: Path) -> Path:
    """The model's file: what the worker that serves the runtime on this machine leaves in its job's folder."""
    with Worker(peers.command(key, python, job, None), job / "log") as worker:
        worker.start()
    return job / MODELS[key]


class _Guest:
    """An emulated Python with the runtimes."""

    def __init__(self, cpu: str) -> None:
        qemu, *_, own_prefix = emulated.command(cpu)
        self._prefix = cached(f"static/peers-{cpu}", lambda folder: _make_prefix(folder, Path(own_prefix)))
        self._emulator = [qemu, "-cpu", cpu, "-L", str(self._prefix)]

    def count(self, model: Path) -> float:
        """Instructions of one call, start and loading left out."""
        environment = {"PYTHONPATH": self._prefix / "site", "PYTHONHOME": self._prefix / "usr", "PYTHONHASHSEED": 0}
        settings = [word for name, value in environment.items() for word in ("-E", f"{name}={value}")]
        program = [*settings, str(self._prefix / "usr/bin" / f"python{PYTHON}"), str(SCRIPT), str(model)]
        totals = [counted(self._emulator, [*program, str(calls)]) for calls in (FEW, MANY)]
        return (totals[1] - totals[0]) / (MANY - FEW)

    def version_of(self, key: str) -> dict[str, str]:
        """The emulated wheel's version."""
        name = WHEELS[key.split("_")[0]]
        (folder,) = (self._prefix / "site").glob(f"{name.replace('-', '_')}-*.dist-info")
        return {f"{name} (aarch64)": folder.name.removesuffix(".dist-info").rpartition("-")[2]}


def _make_prefix(folder: Path, own_prefix: Path) -> None:
    if shutil.which("mmdebstrap") is None:
        raise IrnnError("no mmdebstrap for the emulated Python: apt-get install --no-install-recommends mmdebstrap")
    _run(["mmdebstrap", "--variant=extract", "--architectures=arm64", f"--include={PACKAGES}", SUITE, str(folder)])
    with tempfile.TemporaryDirectory() as wheels:
        names = [word for name in PLATFORMS for word in ("--platform", f"{name}_aarch64")]
        options = ["--quiet", "--dest", wheels, "--only-binary=:all:", "--python-version", PYTHON, *names]
        _run([sys.executable, "-m", "pip", "download", *options, *WHEELS.values()])
        for wheel in Path(wheels).glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder / "site")
    (folder / "proc").mkdir(exist_ok=True)
    # Both runtimes read the host's description of its CPU, and crash over one that is not ARM's.
    shutil.copy(own_prefix / "proc" / "cpuinfo", folder / "proc")


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise IrnnError(f"{Path(command[0]).name} failed: {error}") from None
    if done.returncode:
        raise IrnnError(f"{Path(command[0]).name} failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
