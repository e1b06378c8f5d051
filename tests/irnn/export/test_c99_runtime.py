"""The runtime header: products at the ends of every encoding, and that a wrong line of it is found out."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from irnn.export.c99 import export
from irnn.program import Node, Program, Tensor, Value
from tests.irnn.export.test_c99 import assert_equal, exported
from tests.support.c99 import MACHINES, STRICT, Exported
from tests.support.golden_vectors import SPECS
from tests.support.random_programs import random_inputs, random_program, random_state

ENCODINGS = {"int8": (8, 127), "int4": (4, 7), "int3": (3, 3), "int2": (2, 1), "ternary": (2, 1), "binary": (1, 1)}


def product(encoding: str, dtype: str, columns: int) -> Program:
    """Rows at both ends of the encoding, mixed ones, and what the operand's dtype holds."""
    rng = np.random.default_rng(columns)
    bits, most = ENCODINGS.get(encoding, (4, 128))
    signs = np.stack([np.ones(columns), -np.ones(columns), np.resize([1, -1], columns), rng.choice([-1, 1], columns)])
    weight = (most * signs).astype(np.int16 if encoding == "codebook" else np.int8)
    if encoding == "codebook":
        weight[3] = rng.choice([1, 2, 4, 8, 16, 32, 64, 128], columns)
    if encoding not in ("binary", "codebook"):
        weight[3, ::3] = 0
    tensors = {"weight": Tensor(weight, bits, encoding), "bias": Tensor(np.array([0, 1, -5, 7], np.int32), 32)}
    info = np.iinfo(dtype)
    inputs = {"x": Value(dtype, (columns,), low=info.min, high=info.max)}
    node = Node("linear", ("x",), "y", {}, {"weight": "weight", "bias": "bias"})
    program = Program("integer", inputs, ("y",), {}, inputs | {"y": Value("int32", (4,))}, (node,), tensors)
    program.check()
    return program


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("encoding", [*ENCODINGS, "codebook"])
def test_products_are_exact_at_the_ends(encoding: str, dtype: str, tmp_path: Path) -> None:
    """Columns that leave every remainder of a byte's fields, under the sanitizers and optimized."""
    for columns, machine in ((1, "gcc"), (7, "gcc"), (10, "gcc"), (16, "gcc-O3"), (17, "gcc-O3")):
        program = product(encoding, dtype, columns)
        info, rng = np.iinfo(dtype), np.random.default_rng(0)
        x = rng.integers(info.min, info.max, (1, 5, columns), endpoint=True).astype(dtype)
        x[0, 0], x[0, 1], x[0, 2] = info.min, info.max, np.resize([info.min, info.max], columns)
        compiled = exported(program, tmp_path, MACHINES[machine], {"time": 5})
        ((_, outputs, _),) = compiled.run([({"x": x}, None)])
        np.testing.assert_array_equal(outputs[0], program.run(x)[0], strict=True)


WRONG = {
    "a shift that rounds to zero": (
        "lstm_extreme",
        "int64_t n) { return x < 0 ? ~(~x >> n) : x >> n; }",
        "int64_t n) { return x / (INT64_C(1) << n); }",
    ),
    "a clamp that is open above": ("lstm_extreme", "x > high ? high : x", "x > high && low > high ? high : x"),
    "a table that is read a piece too far": ("lstm", "return low;", "return low < n ? low + 1 : low;"),
    "a root that is 2 % too large": ("lstm_layer_norm", "return root;", "return root + root / 64;"),
    "fields in the wrong order": ("lstm_2_bit", "(four & 3) ^ 2", "(four / 4 & 3) ^ 2"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_line_is_found_out(name: str, tmp_path: Path) -> None:
    spec, right, wrong = WRONG[name]
    program = random_program(SPECS[spec])
    (source,) = export(program, tmp_path, name="net")
    (key,) = program.inputs
    inputs, state = random_inputs(program, 1, 20), random_state(program, 1)
    expected = program.run_all(inputs, state)
    for text, equal in ((None, True), (wrong, False)):
        header = tmp_path / "irnn_runtime.h"
        before = header.read_text()
        assert right in before
        header.write_text(before if text is None else before.replace(right, text))
        (found,) = Exported(program, source, tmp_path, MACHINES["gcc-O3"], {"time": 20}).run([({key: inputs}, state)])
        if equal:
            assert_equal(program, found, expected)
        else:
            with pytest.raises(AssertionError):
                assert_equal(program, found, expected)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_the_header_stands_alone_and_works_in_cpp(compiler: str, tmp_path: Path) -> None:
    MACHINES[compiler].need()
    (source,) = export(random_program(SPECS["lstm"]), tmp_path, name="net")
    unit = tmp_path / "alone.c"
    unit.write_text(f'#include "irnn_runtime.h"\n#include "{source.name}.h"\n#include "irnn_runtime.h"\nint alone;\n')
    for language in (STRICT, ("-x", "c++", "-std=c++11", "-Wall", "-Wextra", "-Werror", "-pedantic")):
        command = [compiler, *language, "-c", str(unit), "-o", str(tmp_path / "alone.o")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
