"""Bundles: one archive for a board that RPC cannot reach, or for which there is no TVM runtime.

The folder in it holds the compiled function (``library.so``), its constants (``parameters.bin``), inputs and what the
interpreter makes of them (``golden.bin``), a description of these (``network.txt``), and ``runner``: statically linked,
it compares and times.  ``runner.c`` is its source and shows how to call the function.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy_tvm.artefact.artefact import open_program
from deploy_tvm.artefact.inputs import random_input
from deploy_tvm.codegen.interface import KERNEL
from deploy_tvm.targets import Target, toolchain
from deploy_tvm.targets.compiler import compile_function, kernel_of
from irnn.errors import IrnnError
from irnn.places import need_file
from irnn.program import Program, storage

ALIGNMENT = 64
RUNNER = Path(__file__).parent / "runner.c"
MAX_TOKENS = 100_000
README = """\
An integer-only recurrent network, compiled for {target}.  On the board:

    ./runner            compares it with the reference, integer by integer, and times it

`sha256sum -c SHA256SUMS` tells whether the files arrived whole.  runner.c shows how to call library.so from C.
"""


@dataclass(frozen=True)
class _Argument:
    """An argument of the compiled function: its role, its data (of the whole golden sequence) and its shape."""

    role: str
    array: np.ndarray
    shape: tuple[int, ...]  # -1: the steps of one call

    def line(self, offset: int) -> str:
        kind = {"i": "int", "u": "uint", "f": "float"}[self.array.dtype.kind]
        sizes = " ".join(map(str, self.shape))
        return f"{self.role} {kind} {8 * self.array.dtype.itemsize} {len(self.shape)} {sizes} {offset}"


def bundle(folder: Path, target: Target, archive: Path, tokens: int) -> None:
    """Write the bundle of the integer program or artefact in ``folder`` for ``target``: ``archive``, a ``.tar.gz``.

    tokens: length of the golden sequence.
    """
    if not 1 <= tokens <= MAX_TOKENS:
        raise IrnnError(f"--tokens {tokens}: must lie in 1 to {MAX_TOKENS}")
    if not archive.name.endswith(".tar.gz"):
        raise IrnnError(f"out={archive}: must end in .tar.gz")
    need_file(archive, f"out={archive}")
    program = open_program(folder, "integer")
    target = target.resolve()
    with tempfile.TemporaryDirectory(prefix="irnn-bundle-") as scratch:
        content = Path(scratch) / archive.name.removesuffix(".tar.gz")
        content.mkdir()
        constants = _compile(program, target, content)
        _describe(program, target, constants, tokens, content)
        (content / "README.txt").write_text(README.format(target=target.name), encoding="utf-8")
        sums = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in sorted(content.iterdir())]
        (content / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
        _pack(content, archive)


def _compile(program: Program, target: Target, content: Path) -> list[np.ndarray]:
    """Write ``library.so``, ``runner`` and ``runner.c``; returns the constants that the function takes."""
    compiler = toolchain.find(target.mtriple)
    function, constants = kernel_of(program, target)
    built = compile_function(function, KERNEL, target)
    objects = content / "objects"
    objects.mkdir()
    built.export_library(str(content / "library.so"), fcompile=toolchain.collect_objects(objects))
    files = [str(path) for path in sorted(objects.iterdir())]
    compiler.link_shared(str(content / "library.so"), files)
    shutil.copy(RUNNER, content)
    compiler.run(["-std=gnu11", "-O2", *compiler.static(), str(RUNNER), *files, "-o", str(content / "runner"), "-lm"])
    shutil.rmtree(objects)
    for name in ("library.so", "runner"):
        toolchain.check_elf(content / name, target.mtriple)
    return constants


def _describe(program: Program, target: Target, constants: list[np.ndarray], tokens: int, content: Path) -> None:
    """Write ``network.txt``, ``parameters.bin`` and ``golden.bin``."""
    x = random_input(program, tokens)
    before = program.initial_state(1)
    y, after = program.run(x, before)
    arguments = [
        _Argument("input", x, (1, -1, *x.shape[2:])),
        *(_Argument("state", array, array.shape) for array in before.values()),
        *(_Argument("constant", array, array.shape) for array in constants),
        _Argument("output", y, (1, -1, *y.shape[2:])),
        *(_Argument("next", after[name], after[name].shape) for name in before),
    ]
    steps = 1 if program.streaming else tokens
    parameters, golden = bytearray(), bytearray()
    lines = [
        f"irnn-bundle 1 target {target.name} program {storage.program_hash(program)}",
        f"steps {steps} calls {tokens // steps} arguments {len(arguments)}",
    ]
    for argument in arguments:
        data = parameters if argument.role == "constant" else golden
        lines.append(argument.line(len(data)))
        data += np.ascontiguousarray(argument.array).tobytes()
        data += bytes(-len(data) % ALIGNMENT)
    (content / "network.txt").write_text("\n".join(lines) + "\n", encoding="ascii")
    (content / "parameters.bin").write_bytes(parameters)
    (content / "golden.bin").write_bytes(golden)


def _pack(content: Path, archive: Path) -> None:
    """The archive appears whole or not at all, and is the same for the same content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=6) as tar:
        tar.add(content, content.name, filter=_anonymous)
    temporary = archive.with_name(f".{archive.name}.part")
    try:
        temporary.write_bytes(buffer.getvalue())
        os.replace(temporary, archive)
    except OSError as error:
        raise IrnnError(f"cannot write {archive}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _anonymous(item: tarfile.TarInfo) -> tarfile.TarInfo:
    item.uid = item.gid = item.mtime = 0
    item.uname = item.gname = ""
    item.mode = 0o755 if item.isdir() or item.name.endswith("/runner") else 0o644
    return item
