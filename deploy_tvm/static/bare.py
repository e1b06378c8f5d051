"""Runs one compiled function for ARM under user-mode qemu, without TVM on the emulated side, and counts instructions.

For this machine's own processor it runs as it is.  ``driver.c`` calls the function on arrays from a file; ``plugin.c``,
compiled here, counts what qemu executes.
"""

from __future__ import annotations

import hashlib
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tvm
import tvm_ffi.libinfo

from deploy_tvm.artefact.inputs import output_arrays
from deploy_tvm.codegen.interface import KERNEL
from deploy_tvm.remote import emulated
from deploy_tvm.remote.cache import cached
from deploy_tvm.targets import Target, toolchain
from deploy_tvm.targets.compiler import compile_function, kernel_of
from irnn.errors import IrnnError
from irnn.program import Program

HERE = Path(__file__).parent
SECONDS = 900  # of one emulated process: other runtimes' float code takes minutes on a busy machine
TYPE_CODES = {"i": 0, "u": 1, "f": 2}
# Calls that are counted: the difference leaves out the start of the process and the reading of the arrays.
CALLS = (1, 5)


def emulator(target: Target) -> list[str]:
    """The command in front of a program for ``target``: qemu with a CPU that has the target's instructions, no more.

    This machine's own programs need none.
    """
    if target.mtriple.startswith(platform.machine()):
        return []
    if "i8mm" in target.features():
        qemu, _, _, *rest = emulated.command("cortex-a76")
        return [qemu, "-cpu", "max", *rest]
    return emulated.command(emulated.cpu_of(target.mcpu))


class BareFunction:
    """A TIR function compiled for ``target``, in ``folder``; needs a cross compiler and user-mode qemu."""

    def __init__(self, function: tvm.tirx.PrimFunc, target: Target, folder: Path) -> None:
        self.folder = folder
        self._module = compile_function(function, KERNEL, target)
        self.library = folder / f"{KERNEL}.so"
        self._module.export_library(str(self.library), fcompile=toolchain.find(target.mtriple).link_shared)
        self.emulator, self._driver = emulator(target), driver(target)

    @property
    def assembly(self) -> str:
        """The compiler's listing."""
        return self._module.inspect_source("asm")

    def __call__(self, *arrays: np.ndarray, calls: int = 1) -> list[np.ndarray]:
        """Call the function on copies of ``arrays`` and return all of them as they are after the last call."""
        execute(self.command(calls, *arrays))
        results, offset, data = [], 0, (self.folder / "out").read_bytes()
        for array in arrays:
            results.append(np.frombuffer(data, array.dtype, array.size, offset).reshape(array.shape))
            offset += array.nbytes
        return results

    def instructions(self, *arrays: np.ndarray) -> float:
        """Instructions that one call executes, between the first call and the last."""
        _write(self.folder / "in", arrays)
        few, many = (counted(self.emulator, self._program(calls)) for calls in CALLS)
        return (many - few) / (CALLS[1] - CALLS[0])

    def command(self, calls: int, *arrays: np.ndarray) -> list[str]:
        """The command that calls the function so often on ``arrays``."""
        _write(self.folder / "in", arrays)
        return [*self.emulator, *self._program(calls)]

    def _program(self, calls: int) -> list[str]:
        files = [self.folder / "in", self.folder / "out"]
        return [str(word) for word in (self._driver, self.library, f"__tvm_ffi_{KERNEL}", calls, *files)]


def counted(emulator: list[str], program: list[str]) -> int:
    """Instructions that ``program`` executes from its start to its end."""
    qemu, *options = emulator
    text = execute([qemu, "-plugin", str(counter()), *options, *program])
    found = re.search(r"instructions: (\d+)", text)
    if found is None:
        raise IrnnError(f"{qemu} printed no count (a static build has no plugins): {text.strip()[:200]}")
    return int(found[1])


def emulator_version(emulator: list[str]) -> str:
    """qemu's version: the number of emulated instructions does not depend on it, what it can emulate does."""
    done = subprocess.run([emulator[0], "--version"], capture_output=True, text=True, timeout=SECONDS)
    return (re.search(r"version ([\d.]+)", done.stdout) or ["", "unknown"])[1]


def execute(command: list[str]) -> str:
    """What an emulated program prints on its standard error."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise IrnnError(f"{command[0]} did not end within {SECONDS} s") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"code {done.returncode}"])[-1]
        raise IrnnError(f"the emulated program failed ({reason})")
    return done.stderr


def program_function(program: Program, target: Target, folder: Path) -> tuple[BareFunction, list[np.ndarray]]:
    """(the program's kernel, its constants) for ``target``."""
    function, constants = kernel_of(program, target)
    return BareFunction(function, target, folder), constants


def arguments(
    program: Program, constants: list[np.ndarray], inputs: Mapping[str, np.ndarray], state: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """The arguments of a program's kernel: inputs by name, states, constants, memory for the outputs and next states.

    Of what :class:`BareFunction` returns for them, :func:`results` are the last ones.
    """
    given = [inputs[name] for name in program.inputs]
    states = list(state.values())
    return [*given, *states, *constants, *output_arrays(program, inputs), *(np.zeros_like(s) for s in states)]


def results(program: Program, arrays: list[np.ndarray]) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """(outputs, next states) among the arguments of a call that has been made."""
    found = arrays[len(arrays) - len(program.outputs) - len(program.states) :]
    count = len(program.outputs)
    return found[:count], dict(zip(program.states, found[count:], strict=True))


def driver(target: Target) -> Path:
    """The driver for ``target``, compiled once."""
    source = HERE / "driver.c"
    include = Path(tvm_ffi.libinfo.find_include_path())
    flags = ["-O2", f"-I{include}", f"-I{tvm_ffi.libinfo.find_dlpack_include_path()}"]
    return _compiled(
        toolchain.find(target.mtriple), source, [*flags, str(source), "-ldl", "-rdynamic", "-Wl,--no-as-needed", "-lm"]
    )


def counter() -> Path:
    """The counting plugin of qemu, compiled once for this machine."""
    source = HERE / "plugin.c"
    compiler = toolchain.find(f"{platform.machine()}-linux-gnu")
    return _compiled(compiler, source, ["-O2", "-shared", "-fPIC", str(source)])


def _compiled(compiler: toolchain.Compiler, source: Path, flags: list[str]) -> Path:
    key = hashlib.sha256(repr((compiler.command, flags)).encode() + source.read_bytes()).hexdigest()[:12]
    folder = cached(f"static/{source.stem}-{key}", lambda f: compiler.run([*flags, "-o", str(f / source.stem)]))
    return folder / source.stem


def _write(path: Path, arrays: tuple[np.ndarray, ...]) -> None:
    with open(path, "wb") as file:
        file.write(np.int32(len(arrays)).tobytes())
        for array in arrays:
            header: list[Any] = [TYPE_CODES[array.dtype.kind], array.dtype.itemsize * 8, array.ndim]
            file.write(np.array(header, np.int32).tobytes() + np.array(array.shape, np.int64).tobytes())
            file.write(np.ascontiguousarray(array).tobytes())
