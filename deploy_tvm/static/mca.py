"""Cycles of the inner kernels by ``llvm-mca``: a model of a core's pipelines, fed from the first-level cache."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, prim_func
from deploy_tvm.codegen.kernels import LinearKernel
from deploy_tvm.codegen.kernels.choice import Choice
from deploy_tvm.codegen.kernels.walsh import WalshKernel
from deploy_tvm.codegen.rows import SLACK, buffer_row
from deploy_tvm.targets import Target
from deploy_tvm.targets.compiler import compile_function
from irnn.errors import IrnnError
from irnn.program import Node, Program, Scan
from irnn.program.axes import Axis

ITERATIONS = 200
SECONDS = 120
OLDEST = 19  # llvm-mca-14 takes a Neoverse N1 for a Cortex-A57
VERSIONS = range(30, OLDEST - 1, -1)
# Multiplications of one instruction, by the beginning of its line (mnemonic, registers).
PRODUCTS = (
    (re.compile(r"[su]mmla\s"), 32),
    (re.compile(r"[su]dot\s"), 16),
    (re.compile(r"sm(ull|lal)2?\s+v\d+\.8h"), 8),
    (re.compile(r"vm(ull|lal)\.s8\s"), 8),
    (re.compile(r"sm(ull|lal)2?\s+v\d+\.4s"), 4),
    (re.compile(r"fmla\s+v\d+\.4s"), 4),
    (re.compile(r"cnt\s+v\d+\.16b"), 128),
    (re.compile(r"vcnt\.8\s+q"), 128),
)
LOOK_UP = re.compile(r"tbl\s+v\d+\.16b")
_LABEL = re.compile(r"(\.L\w+):")
_INSTRUCTION = re.compile(r"\t([a-z].*)")
_BRANCH = re.compile(r"(b|bl|br|blr|ret|b\.\w\w|b(eq|ne|hs|lo|cs|cc|mi|pl|hi|ls|ge|lt|gt|le)|[ct]bn?z)\b(?!\.)")


@dataclass(frozen=True)
class Core:
    """A core, the target that is compiled for it, and the peak bandwidth of the memory of a board that has it."""

    target: Target
    bandwidth: float  # bytes per second
    memory: str


def _core(mcpu: str, bandwidth: float, memory: str) -> Core:
    target = Target(mcpu.replace("-", "_"), mtriple="aarch64-linux-gnu", mcpu=mcpu)
    return Core(target, bandwidth * 1e9, memory)


CORES = {
    "cortex-a53": _core("cortex-a53", 3.6, "32-bit LPDDR2-900 (Raspberry Pi 3)"),
    "cortex-a55": _core("cortex-a55", 14.9, "32-bit LPDDR4X-3733 (phones)"),
    "cortex-a72": _core("cortex-a72", 12.8, "32-bit LPDDR4-3200 (Raspberry Pi 4)"),
    "cortex-a76": _core("cortex-a76", 17.1, "32-bit LPDDR4X-4267 (Raspberry Pi 5)"),
    "neoverse-n1": _core("neoverse-n1", 25.6, "one channel of DDR4-3200"),
}


def cycles_per_step(program: Program, core: Core, steps: int) -> float:
    """Cycles that the matrix-vector products of one time step take on ``core``, weights in its first-level cache.

    steps: of the sequence, for what is made once in it.  A Hadamard matrix' few additions are not among them.
    """
    total, choice = 0.0, Choice(program, core.target.kernels())
    for node, rate in rates(program, steps):
        if node.op != "linear":
            continue
        kernel, weight = choice.kernel(node), program.tensors[node.tensors["weight"]].data
        if isinstance(kernel, WalshKernel):
            continue
        vectors = math.prod(program.values[node.output].shape) / len(weight)
        body = inner_loop(assembly(kernel, core.target, weight, program.values[node.inputs[0]].dtype), kernel.looked_up)
        cost = cycles(body, core.target) / products(body, kernel.looked_up)
        total += rate * vectors * weight.size * kernel.passes * cost
    return total


def rates(program: Program, steps: int) -> Iterator[tuple[Node, float]]:
    """Every node and how often a time step needs it: behind a subsampling less than once, behind the last step of a
    sequence of ``steps`` once in all of them."""
    for item in program.nodes:
        along = next(iter(item.sequences.values())) if isinstance(item, Scan) else item.output
        axes = program.values[along].axes
        rate = 1 / Axis.parse(axes[0]).factor if axes else 1 / steps
        yield from ((node, rate) for node in (item.body if isinstance(item, Scan) else (item,)))


def assembly(kernel: LinearKernel, target: Target, weight: np.ndarray, dtype: str) -> str:
    """The listing of the product of ``weight`` with one vector of ``dtype``."""
    rows, length = weight.shape
    packed = kernel.pack(kernel.as_read(weight), np.zeros(rows, kernel.accumulator))
    emitter = Emitter()
    given = tirx.decl_buffer((length + SLACK,), dtype, "x")
    buffers = {role: tirx.decl_buffer(array.shape, str(array.dtype), role) for role, array in packed.items()}
    out = tirx.decl_buffer((kernel.blocks(rows) * kernel.block_rows,), kernel.accumulator, "out")
    operand = kernel.allocate(emitter, 1, length)
    kernel.fill(emitter, target.kernels().ops(emitter), operand, 0, buffer_row(given, length, dtype))
    with emitter.loop(kernel.blocks(rows)) as block:
        (registers,) = kernel.tile(emitter, operand, [0], buffers, block)
        for u, register in enumerate(registers):
            emitter.store(out, register, block * kernel.block_rows + u * kernel.lanes)
    function = prim_func([given, *buffers.values(), out], emitter.finish(), "product")
    return compile_function(function, "product", target).inspect_source("asm")


def inner_loop(listing: str, looked_up: int = 0) -> list[str]:
    """The instructions of the innermost loop with the most multiplications in a listing.  The product of a small matrix
    may be no loop: then the straight piece of code with the most of them."""
    lines: list[str] = []
    labels: dict[str, int] = {}
    for line in listing.splitlines():
        if label := _LABEL.match(line):
            labels[label[1]] = len(lines)
        elif instruction := _INSTRUCTION.match(line):
            lines.append(re.split(r"//|@ ", instruction[1])[0].strip())
    loops, ends = [], {0, len(lines), *labels.values()}
    for end, line in enumerate(lines):
        if _BRANCH.match(line):
            ends.add(end + 1)
            start = labels.get(line.replace(",", " ").split()[-1])
            if start is not None and start <= end:
                loops.append((start, end + 1))
    inner = [a for a in loops if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    for pieces in (inner, list(pairwise(sorted(ends)))):
        best = max((lines[start:end] for start, end in pieces), key=lambda body: products(body, looked_up), default=[])
        if products(best, looked_up):
            return best
    raise IrnnError("--static finds no multiplication in the code of a product")


def products(lines: list[str], looked_up: int = 0) -> int:
    """Multiplications of integers or floats in a list of instructions; ``looked_up``: by one look-up."""
    patterns = [(LOOK_UP, looked_up)] if looked_up else PRODUCTS
    return sum(count for line in lines for pattern, count in patterns if pattern.match(line))


def cycles(loop: list[str], target: Target) -> float:
    """Cycles of one round of ``loop`` in the long run."""
    with tempfile.NamedTemporaryFile("w", suffix=".s") as file:
        file.write("\n".join(loop) + "\n")
        file.flush()
        tool, triple = find_tool(), f"-mtriple={target.mtriple}"
        command = [tool, triple, f"-mcpu={target.mcpu}", f"-iterations={ITERATIONS}", file.name]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS)
    found = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    if found is None:
        reason = (done.stderr.strip().splitlines() or [f"code {done.returncode}"])[0]
        raise IrnnError(f"{Path(tool).name} failed for {target.mcpu}: {reason}")
    return int(found[1]) / ITERATIONS


def find_tool() -> str:
    """``llvm-mca``, the newest version that is installed."""
    for name in [*(f"llvm-mca-{version}" for version in VERSIONS), "llvm-mca"]:
        if (found := shutil.which(name)) and int(tool_version(found).split(".")[0]) >= OLDEST:
            return found
    raise IrnnError(f"no llvm-mca of LLVM {OLDEST} or newer: apt-get install --no-install-recommends llvm-{OLDEST}")


def tool_version(tool: str) -> str:
    """The LLVM version of one of its tools."""
    done = subprocess.run([tool, "--version"], capture_output=True, text=True, errors="replace", timeout=SECONDS)
    found = re.search(r"LLVM version (\d+[\d.]*)", done.stdout)
    if found is None:
        raise IrnnError(f"{tool} --version names no LLVM version")
    return found[1]
