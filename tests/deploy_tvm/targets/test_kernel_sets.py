"""This machine as one that has less: the set is chosen, and no instruction is left that such a CPU lacks."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

import deploy_tvm
from deploy_tvm import targets
from deploy_tvm.bench import floor
from deploy_tvm.codegen.kernels import X86_SETS, choose
from deploy_tvm.targets import kernel_sets
from deploy_tvm.targets.disassembly import disassemble
from irnn.errors import IrnnError
from tests.support import needs
from tests.support.random_programs import Spec, random_inputs, random_program

SETS = pytest.mark.parametrize("kernels", X86_SETS)
# What a CPU lacks whose best set it is: wider or more registers, masks, and instructions of their own.
FOREIGN = {
    "amx": r"(?!)",
    "avx512vnni": r"tdp",
    "avxvnni": r"%zmm|%[xy]mm(?:1[6-9]|2\d|3[01])|%k[0-7]",
    "avx2": r"%zmm|%[xy]mm(?:1[6-9]|2\d|3[01])|%k[0-7]|vpdp|gf2p8",
    "portable": r"%[yz]mm|\bv[a-z0-9]+\s.*%xmm|pshufb|pmaddubsw|pmulld|pblend|pmovsx|pinsr[bdq]|pextr[bdq]",
}


def runnable(kernels: str) -> targets.Target:
    """The machine with that set, or a skip."""
    needs.features(sorted(X86_SETS[kernels] - targets.cpu_flags()))
    return kernel_sets.host(kernels)


@SETS
def test_a_set_needs_what_its_table_says(kernels: str) -> None:
    assert choose(X86_SETS[kernels]).name == kernels
    for feature in X86_SETS[kernels]:
        assert choose(X86_SETS[kernels] - {feature}).name != kernels


@SETS
def test_the_set_is_chosen(kernels: str) -> None:
    target = runnable(kernels)
    assert target.kernels().name == kernels
    own = targets.find("host").resolve()
    if kernels == "avx512vnni":  # without tiles it is the same CPU
        assert target.features() == own.features() - (X86_SETS["amx"] - X86_SETS[kernels])
    elif kernels != own.kernels().name:
        assert target.features() == X86_SETS[kernels]


@pytest.mark.parametrize("named", ["nehalem", "skylake-avx512", "rocketlake", "sapphirerapids"])
@SETS
def test_flags_decide_whatever_a_virtual_machine_calls_its_cpu(
    kernels: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its model number may be that of another CPU, older or newer."""
    flags = X86_SETS[kernels] | ({"avx2", "avx512f"} if kernels in ("amx", "avx512vnni") else set())
    monkeypatch.setattr(targets, "cpu_flags", lambda: frozenset({"sse2", "fma", *flags}))
    monkeypatch.setattr(targets.tvm.target.codegen, "llvm_get_system_cpu", lambda: named)
    target = targets.find("host").resolve()
    assert target.features() == flags
    assert target.kernels().name == kernels
    compiled, _ = floor.peak_module(floor.PRODUCTS[kernels], target.tvm())  # LLVM has the instruction
    assert (compiled.mod.inspect_source("asm").count("vpdpbusd") >= floor.CHAINS) == (
        kernels in ("amx", "avx512vnni", "avxvnni")
    )


def test_matrix_tiles_are_taken_where_linux_can_be_asked_for_them() -> None:
    names = {
        system: targets.Target("server", mtriple=f"x86_64-{system}", mcpu="sapphirerapids").kernels().name
        for system in ("linux-gnu", "linux-musl", "pc-windows-msvc", "apple-darwin")
    }
    assert names == {
        "linux-gnu": "amx", "linux-musl": "amx", "pc-windows-msvc": "avx512vnni", "apple-darwin": "avx512vnni",
    }  # fmt: skip


@needs.objdump
@SETS
def test_no_instruction_is_left_that_such_a_cpu_lacks(kernels: str, tmp_path: Path) -> None:
    target = runnable(kernels)
    program = random_program(Spec(norm="mad", weight_bits=4, layers=2))
    folder = deploy_tvm.build(program, tmp_path / "artefact", target)
    assert not foreign(folder, kernels)
    inputs = random_inputs(program, 1, 5)
    output, _ = deploy_tvm.load(folder).run(inputs)
    assert np.array_equal(output, program.run(inputs)[0])


def foreign(artefact: Path, kernels: str) -> list[str]:
    """The lines of a library that a CPU cannot execute whose best set is ``kernels``."""
    (library,) = artefact.glob("*.so")
    lines = disassemble(library).splitlines()
    assert len(lines) > 1000
    return [line for line in lines if re.search(FOREIGN[kernels], line)]


@needs.objdump
def test_such_instructions_are_found_in_the_library_of_the_best_set(tmp_path: Path) -> None:
    best, *lesser = kernel_sets.runnable()
    folder = deploy_tvm.build(random_program(Spec(norm="mad", weight_bits=4, layers=2)), tmp_path / "artefact")
    assert not foreign(folder, best)
    for kernels in lesser:
        assert foreign(folder, kernels), kernels


def test_the_machines_own_set_is_the_machine() -> None:
    own = targets.find("host").resolve()
    assert kernel_sets.host() == kernel_sets.host(own.kernels().name) == own
    assert kernel_sets.runnable()[0] == own.kernels().name


def test_a_set_that_the_cpu_lacks_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (targets, kernel_sets):
        monkeypatch.setattr(module, "cpu_flags", lambda: frozenset({"avx2", "avx512f"}))
    assert kernel_sets.runnable() == ("avx2", "portable")
    with pytest.raises(IrnnError, match=r"^kernels=avxvnni: this CPU lacks avxvnni; it can run avx2, portable$"):
        kernel_sets.host("avxvnni")
    with pytest.raises(IrnnError, match=r"^kernels=sse2: this machine knows no such set; it can run avx2, portable$"):
        kernel_sets.host("sse2")
