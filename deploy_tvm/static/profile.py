"""Instructions of one step on this machine, part by part, counted by valgrind's callgrind.

No time is measured: the figures are the same on a busy machine, and whoever repeats them gets the same.  Each statement
of the compiled function says in its line number what it belongs to (:mod:`deploy_tvm.codegen.spans`); callgrind counts
by line.  valgrind knows no AVX-512: a CPU that has it is profiled with the set of kernels below.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from deploy_tvm.artefact.inputs import random_inputs
from deploy_tvm.bench.rounds import now
from deploy_tvm.codegen.interface import KERNEL
from deploy_tvm.codegen.spans import Part
from deploy_tvm.static import bare
from deploy_tvm.targets import Target, machine
from irnn.errors import IrnnError
from irnn.program import Program
from irnn.program.axes import Axis
from irnn.program.graph import too_short

# What LLVM calls the source of a compiled function, and TVM the function without the check of its arguments.
SOURCE = "CodeGenLLVM"
BODY = "fn=kernel_compute_"
CALL = "call"  # the arguments' checks, and memory that is asked for
NAMES = {
    Part.PRODUCT: "products",
    Part.OUTPUT: "output layer",
    Part.OPERAND: "operands of products",
    Part.REQUANTIZATION: "requantization",
    Part.TABLE: "table look-ups",
    Part.ELEMENTWISE: "other elementwise operations",
    Part.NORM: "norms",
    Part.EMBEDDING: "embedding",
    Part.COPY: "copies",
    Part.REST: "loops and addresses",
}
AVX512 = ("amx", "avx512vnni")


def profile(program: Program, target: Target, steps: int = 1) -> dict[str, Any]:
    """Instructions a step of the output, by part, of a call with ``steps`` steps of one sequence; JSON-ready.

    target: this machine, with kernels that valgrind can execute.
    """
    if target.kernels().name in AVX512:
        raise IrnnError("valgrind executes no AVX-512: profile with --kernels avxvnni or --kernels avx2")
    if problem := too_short(program.fewest, {"time": steps, "memory": steps}):
        raise IrnnError(problem)
    valgrind, made = _find(), _made(program, steps)
    inputs = random_inputs(program, {"time": steps, "memory": steps})
    with tempfile.TemporaryDirectory(prefix="irnn-profile-") as folder:
        function, constants = bare.program_function(program, target, Path(folder))
        arrays = bare.arguments(program, constants, inputs, program.initial_state(1))
        few, many = (_counted(valgrind, function.command(calls, *arrays), Path(folder)) for calls in bare.CALLS)
    rounds = bare.CALLS[1] - bare.CALLS[0]
    names = [*NAMES.values(), CALL]
    parts = {name: (many.get(name, 0) - few.get(name, 0)) / rounds / made for name in names}
    return {
        "kind": "profile",
        "target": target.name,
        "kernels": target.kernels().name,
        "machine": machine.describe(),
        "steps": steps,
        "instructions_per_step": sum(parts.values()),
        "parts": {name: count for name, count in parts.items() if count},
        "versions": machine.versions() | {"valgrind": _version(valgrind)},
        "measured": now(),
    }


def _made(program: Program, steps: int) -> int:
    """Steps that come out where ``steps`` go in: windows leave fewer; the same where no step comes out."""
    axes = [axis for name in program.outputs for axis in program.values[name].axes[:1]]
    return Axis.parse(axes[0]).size(steps) if axes else steps


def by_part(text: str) -> dict[str, int]:
    """Instructions by part in what callgrind has written (names and positions uncompressed); their sum is its own."""
    counts: dict[str, int] = {}
    source, inside, inclusive = "", False, False
    for line in text.splitlines():
        if found := re.match(r"f[lie]=(.*)", line):
            source = found[1]
        elif line.startswith("fn="):
            inside = line.startswith(BODY)
        elif line.startswith("calls="):
            inclusive = True  # The next line repeats what the called function counts itself.
        elif found := re.match(r"(\d+) (\d+)$", line):
            if not inclusive:
                number = int(found[1])
                # What LLVM has put together of several lines has none.
                of_body = SOURCE in source and inside
                name = NAMES[Part(number or Part.REST)] if of_body and number <= max(Part) else CALL
                counts[name] = counts.get(name, 0) + int(found[2])
            inclusive = False
    total = re.search(r"^totals: (\d+)$", text, re.MULTILINE)
    if total is None or sum(counts.values()) != int(total[1]):
        raise AssertionError(f"parts of {sum(counts.values())} instructions, callgrind counted {total and total[1]}")
    return counts


def _counted(valgrind: str, command: list[str], folder: Path) -> dict[str, int]:
    out = folder / "callgrind.out"
    options = ["--tool=callgrind", "--dump-line=yes", "--compress-strings=no", "--compress-pos=no"]
    bare.execute([valgrind, *options, f"--toggle-collect=__tvm_ffi_{KERNEL}", f"--callgrind-out-file={out}", *command])
    return by_part(out.read_text("utf-8", errors="replace"))


def _find() -> str:
    found = shutil.which("valgrind")
    if found is None:
        raise IrnnError("no valgrind, which counts the instructions: install it with  apt-get install valgrind")
    return found


def _version(valgrind: str) -> str:
    done = subprocess.run([valgrind, "--version"], capture_output=True, text=True, timeout=bare.SECONDS)
    return done.stdout.strip().removeprefix("valgrind-")
