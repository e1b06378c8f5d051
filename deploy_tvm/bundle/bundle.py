"""Bundles: one archive for a board that RPC cannot reach, or for which there is no TVM runtime.

The folder in it holds, for one program, the compiled function (``library.so``), its constants (``parameters.bin``),
inputs and what the interpreter makes of them (``golden.bin``), a description of these (``network.txt``), and
``runner``: statically linked, it compares and times.  ``runner.c`` is its source and shows how to call the function.
Of a set it holds such a folder for each program, and a ``runner`` that runs theirs in turn.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy_tvm.artefact.artefact_set import open_parts
from deploy_tvm.artefact.golden import Golden
from deploy_tvm.artefact.inputs import by_steps, random_inputs
from deploy_tvm.codegen.interface import KERNEL
from deploy_tvm.targets import Target, toolchain
from deploy_tvm.targets.compiler import compile_function, kernel_of
from irnn.errors import IrnnError
from irnn.places import need_file
from irnn.program import Program, Value, storage

ALIGNMENT = 64
RUNNER = Path(__file__).parent / "runner.c"
MAX_TOKENS = 100_000
README = """\
An integer-only recurrent network, compiled for {target}.  On the board:

    ./runner            compares it with the reference, integer by integer, and times it

{parts}`sha256sum -c SHA256SUMS` tells whether the files arrived whole.  runner.c shows how to call library.so from C.
"""
PARTS_README = """\
The programs {parts} have a folder each, with a runner of its own; the runner here runs them in turn.

"""
PARTS_RUNNER = """\
#!/bin/sh
# Runs the runner of each program in turn; fails where one does.
cd "$(dirname "$0")" || exit 2
status=0
for part in {parts}; do
  echo "$part:"
  "./$part/runner" "$@" || status=$?
done
exit $status
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
    """Write the bundle of what ``folder`` holds for ``target``: ``archive``, a ``.tar.gz``.

    folder: of an integer program, an artefact, or a set of either.  tokens: length of the golden sequence (and of what
    an attention looks at).
    """
    if not 1 <= tokens <= MAX_TOKENS:
        raise IrnnError(f"--tokens {tokens}: must lie in 1 to {MAX_TOKENS}")
    if not archive.name.endswith(".tar.gz"):
        raise IrnnError(f"out={archive}: must end in .tar.gz")
    need_file(archive, f"out={archive}")
    sizes = {"time": tokens, "memory": tokens}
    goldens = {name: Golden.of(program, random_inputs(program, sizes)) for name, program in open_parts(folder).items()}
    write(goldens, target, archive)


def write(goldens: Mapping[str, Golden], target: Target, archive: Path) -> None:
    """Write the bundle of programs by part ("" for one that stands alone), each with its golden sequence."""
    target = target.resolve()
    with tempfile.TemporaryDirectory(prefix="irnn-bundle-") as scratch:
        content = Path(scratch) / archive.name.removesuffix(".tar.gz")
        for name, golden in goldens.items():
            (content / name).mkdir(parents=True)
            constants = _compile(golden.program, target, content / name)
            _describe(golden, target, constants, content / name)
        names = [name for name in goldens if name]
        if names:
            (content / "runner").write_text(PARTS_RUNNER.format(parts=" ".join(names)), encoding="ascii")
        parts = PARTS_README.format(parts=" and ".join(names)) if names else ""
        (content / "README.txt").write_text(README.format(target=target.name, parts=parts), encoding="utf-8")
        files = sorted(path for path in content.rglob("*") if path.is_file())
        sums = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(content).as_posix()}\n" for p in files]
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


def _describe(golden: Golden, target: Target, constants: list[np.ndarray], content: Path) -> None:
    """Write ``network.txt``, ``parameters.bin`` and ``golden.bin``."""
    program = golden.program
    before = program.initial_state(1)
    outputs = dict(zip(program.outputs, golden.outputs, strict=True))
    steps = 1 if by_steps(program) else golden.steps

    def sequence(role: str, value: Value, array: np.ndarray) -> _Argument:
        """Along time, a call has some of the steps; other inputs are the same in all calls."""
        if "time" not in value.axes:
            return _Argument("fixed" if role == "input" else role, array, array.shape)
        return _Argument(role, array, (1, -1, *array.shape[2:]) if steps == 1 else array.shape)

    arguments = [
        *(sequence("input", program.inputs[name], array) for name, array in golden.inputs.items()),
        *(_Argument("state", array, array.shape) for array in before.values()),
        *(_Argument("constant", array, array.shape) for array in constants),
        *(sequence("output", program.values[name], array) for name, array in outputs.items()),
        *(_Argument("next", golden.states[name], golden.states[name].shape) for name in before),
    ]
    parameters, golden_data = bytearray(), bytearray()
    lines = [
        f"irnn-bundle 1 target {target.name} program {storage.program_hash(program)}",
        f"steps {steps} calls {golden.steps // steps} arguments {len(arguments)}",
    ]
    for argument in arguments:
        data = parameters if argument.role == "constant" else golden_data
        lines.append(argument.line(len(data)))
        data += np.ascontiguousarray(argument.array).tobytes()
        data += bytes(-len(data) % ALIGNMENT)
    (content / "network.txt").write_text("\n".join(lines) + "\n", encoding="ascii")
    (content / "parameters.bin").write_bytes(parameters)
    (content / "golden.bin").write_bytes(golden_data)


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
