"""Instructions of a step by part: the sums are callgrind's own, and parts grow with what they stand for."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

from deploy_tvm.__main__ import main
from deploy_tvm.artefact.golden import Golden
from deploy_tvm.codegen.kernels.x86_avx2 import LANES
from deploy_tvm.static import bare, profile
from deploy_tvm.targets import find, toolchain
from deploy_tvm.targets.kernel_sets import host, runnable
from irnn.conversion import convert
from irnn.errors import IrnnError
from irnn.program import Node, Program, Value
from tests.support import needs
from tests.support.models import language_model, quantized

WRITTEN = """\
version: 1
events: Ir

fl=/home/x/CodeGenLLVM
fn=kernel_compute_
2 100
0 7
cfn=allocate
calls=3 0
2 50
fi=/usr/include/stdlib.h
2 5
fe=/home/x/CodeGenLLVM
5 30
2 1

fl=/home/x/CodeGenLLVM
fn=__tvm_ffi_kernel
0 12

fl=/src/driver.c
fn=allocate
40 45
totals: 200
"""


def need_valgrind() -> None:
    if shutil.which("valgrind") is None:
        needs.skip("valgrind", "valgrind is not installed")
    if "avx2" not in runnable():
        needs.features(["avx2"])


@pytest.fixture(scope="module")
def program() -> Program:
    return convert(quantized(language_model()))


def test_lines_are_parts_and_what_a_called_function_counts_is_not_counted_twice() -> None:
    counts = profile.by_part(WRITTEN)
    assert counts == {"products": 101, "requantization": 30, "loops and addresses": 7, "call": 5 + 45 + 12}


def test_a_count_that_is_not_callgrinds_is_noticed() -> None:
    with pytest.raises(AssertionError, match="parts of 200 instructions, callgrind counted 201"):
        profile.by_part(WRITTEN.replace("totals: 200", "totals: 201"))


def test_parts_add_up_to_what_callgrind_counts(program: Program, tmp_path: Path) -> None:
    need_valgrind()
    path = tmp_path / "profile.json"
    program.save(tmp_path / "program")
    assert main(["profile", str(tmp_path / "program"), "--kernels", "avx2", "--json", str(path)]) == 0
    result = json.loads(path.read_text())
    parts = result["parts"]
    assert {"products", "output layer", "requantization", "table look-ups", "embedding", "copies", "call"} <= set(parts)
    assert result["instructions_per_step"] == sum(parts.values())
    # A product of 32 weights a round at least one instruction that multiplies.
    weights = sum(program.tensors[f"lstm.0.{name}.weight"].data.size for name in ("w_x", "w_h"))
    assert parts["products"] > weights / (4 * LANES)
    assert parts["output layer"] > program.tensors["embedding.table"].data.size / (4 * LANES)


def test_what_is_done_once_a_call_is_shared_by_its_steps(program: Program) -> None:
    need_valgrind()
    one, eight = (profile.profile(program, host("avx2"), steps)["parts"] for steps in (1, 8))
    assert eight["call"] < one["call"] / 2
    assert one["requantization"] / 2 < eight["requantization"] < 2 * one["requantization"]


def test_windows_leave_fewer_steps_than_go_in() -> None:
    frames = Value("int8", (4,), low=-128, high=127, axes=("time",))
    window = {"channels": 4, "kernel": [5, 1], "strides": [2, 1], "padding": [[0, 0], [0, 0]], "dilation": [1, 1]}
    patches = Node("patches", ("x",), "y", window | {"fill": 0})
    values = {"x": frames, "y": Value("int8", (1, 20), low=-128, high=127, axes=("(time-3)/2",))}
    program = Program("integer", {"x": frames}, ("y",), {}, values, (patches,), {})
    assert [profile._made(program, steps) for steps in (5, 6, 7)] == [1, 1, 2]
    with pytest.raises(IrnnError, match="the inputs have 4 along time, this program takes at least 5"):
        profile.profile(program, host("avx2"), 4)


def test_the_profiled_function_is_the_one_that_is_compared(program: Program, tmp_path: Path) -> None:
    needs.or_skip("c99", lambda: toolchain.find(find("host").mtriple), IrnnError)
    function, constants = bare.program_function(program, host("portable"), tmp_path)
    inputs = {"ids": np.arange(5, dtype=np.int32)[None] * 11}
    golden = Golden.of(program, inputs)
    arrays = bare.arguments(program, constants, inputs, program.initial_state(1))
    assert golden.compare("the built program", *bare.results(program, function(*arrays))).figures()["count"] == 0


def test_sets_that_valgrind_cannot_execute_are_refused(program: Program) -> None:
    target = replace(find("host"), mcpu="sapphirerapids")
    with pytest.raises(IrnnError, match=r"valgrind executes no AVX-512: profile with --kernels avxvnni"):
        profile.profile(program, target)
