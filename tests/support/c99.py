"""Exported C99 compiled for a machine, and run on it or under an emulator, with arrays in and out."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from irnn.export.c99 import Source
from irnn.export.c99.memory import c_type
from irnn.program import Program
from irnn.program.axes import Axis
from tests.support import needs

STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
SANITIZED = ("-fsanitize=undefined,address", "-fno-sanitize-recover=all")
BARE = Path(__file__).parent / "bare_metal"
SECONDS = 300


@dataclass(frozen=True)
class Machine:
    """flags: after the strict ones; runner: before the program's path ({elf} where it is named in an option)."""

    compiler: str
    flags: tuple[str, ...] = ("-O2",)
    runner: tuple[str, ...] = ()
    link: tuple[str, ...] = ()

    def need(self) -> None:
        """Skip where the compiler or the emulator is absent."""
        for tool in (self.compiler, *self.runner[:1]):
            if shutil.which(tool) is None:
                needs.skip("c99", f"{tool} is not installed")
        if SANITIZED[0] in self.flags and not _sanitizes(self.compiler):
            needs.skip("c99", f"{self.compiler} has no sanitizer runtime (clang's is Debian's libclang-rt-dev)")


@cache
def _sanitizes(compiler: str) -> bool:
    """Whether the compiler links with its sanitizers, whose runtimes are packages of their own."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "empty.c"
        source.write_text("int main(void) { return 0; }\n", encoding="ascii")
        made = [compiler, *SANITIZED, str(source), "-o", str(source.with_suffix(""))]
        return subprocess.run(made, capture_output=True, check=False).returncode == 0


def _cortex(board: str, cpu: str) -> Machine:
    runner = (
        "qemu-system-arm", "-M", board, "-nographic", "-monitor", "none", "-serial", "none",
        "-semihosting-config", "enable=on,target=native", "-kernel",
    )  # fmt: skip
    flags = ("-O2", f"-mcpu={cpu}", "-mthumb", "-mfloat-abi=soft")
    return Machine(
        "arm-none-eabi-gcc", flags, runner, ("--specs=rdimon.specs", str(BARE / "vectors.c"), f"-T{BARE / 'mps2.ld'}")
    )


MACHINES = {
    "gcc": Machine("gcc", ("-O0", *SANITIZED)),
    "clang": Machine("clang", ("-O1", *SANITIZED)),
    "gcc-O3": Machine("gcc", ("-O3",)),
    "aarch64": Machine("aarch64-linux-gnu-gcc", ("-O2", "-static"), ("qemu-aarch64",)),
    "armv7": Machine("arm-linux-gnueabihf-gcc", ("-O2", "-static"), ("qemu-arm",)),
    "cortex-m3": _cortex("mps2-an385", "cortex-m3"),
    "cortex-m4": _cortex("mps2-an386", "cortex-m4"),
    "cortex-m7": _cortex("mps2-an500", "cortex-m7"),
}

Call = tuple[Mapping[str, np.ndarray], dict[str, np.ndarray] | None]
Result = tuple[int, list[np.ndarray], dict[str, np.ndarray]]


class Exported:
    """One program, compiled once for a machine; its caller is written here."""

    def __init__(
        self, program: Program, source: Source, folder: Path, machine: Machine, sizes: Mapping[str, int]
    ) -> None:
        """folder: what the export wrote.  sizes: the most places of each axis in a call."""
        machine.need()
        self.program, self.folder, self.machine = program, folder, machine
        self.path = folder / f"{source.name}.elf"
        main = folder / f"{source.name}_main.c"
        main.write_text(_main(program, source, sizes))
        unit = folder / f"{source.name}.c"
        command = [
            machine.compiler,
            *STRICT,
            *machine.flags,
            "-I",
            str(folder),
            str(unit),
            str(main),
            "-o",
            str(self.path),
        ]
        done = subprocess.run([*command, *machine.link], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def run(self, calls: Sequence[Call]) -> list[Result]:
        """One after the other: (inputs of a batch of one, state or None: that of the call before; the first starts)."""
        blob, axes = [np.int32(len(calls)).tobytes()], _axes(self.program)
        for k, (inputs, state) in enumerate(calls):
            sizes = _sizes(self.program, inputs)
            blob.append(
                np.array([2 if state is not None else int(k == 0), *(sizes[a] for a in axes)], np.int32).tobytes()
            )
            if state is not None:
                blob += [np.ascontiguousarray(state[name]).tobytes() for name in self.program.states]
            blob += [np.ascontiguousarray(inputs[n].astype(v.dtype)).tobytes() for n, v in self.program.inputs.items()]
        (self.folder / "in").write_bytes(b"".join(blob))
        (self.folder / "out").unlink(missing_ok=True)
        done = subprocess.run(
            [*self.machine.runner, str(self.path)],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert done.returncode == 0, f"{done.returncode}: {done.stdout}{done.stderr}"
        data, offset, results = (self.folder / "out").read_bytes(), 0, []

        def read(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
            nonlocal offset
            array = np.frombuffer(data, dtype, int(np.prod(shape, dtype=int)), offset).reshape(shape)
            offset += array.nbytes
            return array

        for inputs, _ in calls:
            sizes = _sizes(self.program, inputs)
            code = int(read("int32", ())[()])
            values = [(self.program.inputs | self.program.values)[name] for name in self.program.outputs]
            outputs = [read(v.dtype, (1, *(_places(a, sizes) for a in v.axes), *v.shape)) for v in values]
            state = {name: read(s.dtype, (1, *s.shape)) for name, s in self.program.states.items()}
            results.append((code, outputs, state))
        assert offset == len(data)
        return results


def _axes(program: Program) -> list[str]:
    return list(dict.fromkeys(Axis.parse(axis).root for value in program.inputs.values() for axis in value.axes))


def _sizes(program: Program, inputs: Mapping[str, np.ndarray]) -> dict[str, int]:
    found = {}
    for name, value in program.inputs.items():
        found |= dict(zip(value.axes, inputs[name].shape[1:], strict=False))
    return found


def _places(axis: str, sizes: Mapping[str, int]) -> int:
    parsed = Axis.parse(axis)
    return parsed.size(sizes[parsed.root])


def _main(program: Program, source: Source, sizes: Mapping[str, int]) -> str:
    """A caller that reads calls from the file `in` and writes what they give to `out`."""
    name, axes = source.name, _axes(program)
    count = {"time": "steps", "memory": "memory_size"}
    values = program.inputs | program.values
    arrays, reads, writes, arguments = [], [], [], []
    if program.states:
        arrays.append(f"static {name}_state state;")
        arguments.append("&state")
    if "_scratch *scratch" in source.header:
        arrays.append(f"static {name}_scratch scratch;")
        arguments.append("&scratch")
    arguments += [count[axis] for axis in axes]

    def elements(value) -> str:
        parts = []
        for axis in map(Axis.parse, value.axes):
            parts.append(f"(({count[axis.root]} + {axis.offset}) / {axis.factor})")
        return " * ".join([*(f"(size_t){part}" for part in parts), *map(str, value.shape)]) or "1"

    for k, value in enumerate(program.inputs.values()):
        size = int(np.prod([_places(a, sizes) for a in value.axes] + list(value.shape), dtype=int))
        arrays.append(f"static {c_type(value.dtype)} in_{k}[{size}];")
        reads.append(f"        get(in_{k}, sizeof in_{k}[0], {elements(value)}, in);")
        arguments.append(f"in_{k}" if value.axes or value.shape else f"in_{k}[0]")
    for k, output in enumerate(program.outputs):
        value = values[output]
        size = int(np.prod([_places(a, sizes) for a in value.axes] + list(value.shape), dtype=int))
        arrays.append(f"static {c_type(value.dtype)} out_{k}[{size}];")
        writes.append(f"        put(out_{k}, sizeof out_{k}[0], {elements(value)}, out);")
        arguments.append(f"out_{k}")
    members = _members(source.header, name) if program.states else []
    states = [f"        get(state.{m}, 1, sizeof state.{m}, in);" for m in members]
    writes += [f"        put(state.{m}, 1, sizeof state.{m}, out);" for m in members]
    sizes_read = [f"        {count[axis]} = number(in);" for axis in axes]
    reset = [f"        if (start == 1) {name}_reset(&state);"] if program.states else []
    return (
        "\n".join(
            [
                "#include <stdint.h>",
                "#include <stdio.h>",
                "#include <stdlib.h>",
                f'#include "{name}.h"',
                *arrays,
                "static void get(void *p, size_t size, size_t n, FILE *f)",
                "{ if (fread(p, size, n, f) != n) exit(90); }",
                "static void put(const void *p, size_t size, size_t n, FILE *f)",
                "{ if (fwrite(p, size, n, f) != n) exit(91); }",
                "static int32_t number(FILE *f) { int32_t n; get(&n, sizeof n, 1, f); return n; }",
                "int main(void)",
                "{",
                '    FILE *in = fopen("in", "rb"), *out = fopen("out", "wb");',
                f"    int32_t calls, start{''.join(f', {count[axis]}' for axis in axes)};",
                "    if (in == NULL || out == NULL) return 92;",
                "    for (calls = number(in); calls > 0; --calls) {",
                "        int32_t code;",
                "        start = number(in);",
                *sizes_read,
                *reset,
                *(["        if (start == 2) {", *states, "        }"] if members else []),
                *reads,
                f"        code = (int32_t){name}_run({', '.join(arguments)});",
                "        put(&code, sizeof code, 1, out);",
                *writes,
                "    }",
                "    (void)start;",
                "    return fclose(out) == 0 ? 0 : 93;",
                "}",
            ]
        )
        + "\n"
    )


def _members(header: str, name: str) -> list[str]:
    """The members of the state structure, in order."""
    end = header.index(f"}} {name}_state;")
    text = header[header.rindex("typedef struct {", 0, end) : end]
    return [line.split()[1].partition("[")[0] for line in text.splitlines()[1:]]
