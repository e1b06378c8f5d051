"""Targets: every one of them compiles; linked where a compiler is at hand, named where there is none."""

import shutil
import sys

import pytest

import deploy_tvm
import irnn
from deploy_tvm import targets
from deploy_tvm.artefact.artefact import read_manifest
from deploy_tvm.targets import toolchain
from irnn.errors import IrnnError
from tests.support import models, needs

ARM = [name for name in targets.names() if name not in ("host", "android_arm64")]


@pytest.fixture(scope="module")
def program():
    return irnn.convert(models.quantized(models.language_model()))


def test_there_are_the_boards_that_the_documentation_names():
    assert set(ARM) == {"aarch64", "cortex_a53", "cortex_a55", "cortex_a72", "cortex_a76", "armv7a"}


@pytest.mark.parametrize("name", ARM)
def test_a_library_for_each_board(program, tmp_path, name):
    target = targets.find(name)
    needs.or_skip("arm", lambda: toolchain.find(target.mtriple), IrnnError)
    folder = deploy_tvm.build(program, tmp_path / "artefact", target=name)
    manifest = read_manifest(folder, run_here=False)
    toolchain.check_elf(folder / manifest["library"], target.mtriple)
    with pytest.raises(IrnnError, match="device=emulated"):
        deploy_tvm.load(folder)


def test_android_without_an_ndk_leaves_object_files(program, tmp_path, monkeypatch):
    monkeypatch.delenv(toolchain.NDK, raising=False)
    folder = deploy_tvm.build(program, tmp_path / "artefact", target="android_arm64")
    objects = list((folder / "objects").iterdir())
    assert len(objects) >= 1
    assert {toolchain.elf_machine(path) for path in objects} == {toolchain.ELF_MACHINES["aarch64"]}
    with pytest.raises(IrnnError, match=toolchain.NDK):
        read_manifest(folder, run_here=False)


def test_android_is_linked_by_the_compiler_that_the_variable_names(program, tmp_path, monkeypatch):
    stand_in = shutil.which("aarch64-linux-gnu-gcc")
    if stand_in is None:
        needs.skip("arm", "no aarch64-linux-gnu-gcc")
    monkeypatch.setenv(toolchain.NDK, stand_in)
    folder = deploy_tvm.build(program, tmp_path / "artefact", target="android_arm64")
    toolchain.check_elf(folder / read_manifest(folder, run_here=False)["library"], "aarch64-linux-android")


def test_a_missing_compiler_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "apt-get" else None)
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(IrnnError, match=r"apt-get install g\+\+-aarch64-linux-gnu .* pip install ziglang"):
        toolchain.find("aarch64-linux-gnu")
    with pytest.raises(IrnnError, match=r"g\+\+-arm-linux-gnueabihf"):
        toolchain.find("armv7a-linux-gnueabihf", cxx=True)
    monkeypatch.setenv(toolchain.NDK, "/nowhere/clang")
    with pytest.raises(IrnnError, match="no such program"):
        toolchain.find("aarch64-linux-android")


def test_a_library_for_another_machine_is_refused(tmp_path):
    path = tmp_path / "library.so"
    path.write_bytes(b"\x7fELF\x02\x01" + bytes(12) + (62).to_bytes(2, "little"))
    with pytest.raises(IrnnError, match="is for ELF machine 62"):
        toolchain.check_elf(path, "aarch64-linux-gnu")
    path.write_bytes(b"!<arch>\n")
    with pytest.raises(IrnnError, match="no little-endian ELF"):
        toolchain.elf_machine(path)


def test_a_failing_compiler_tells_its_first_message(tmp_path):
    with pytest.raises(IrnnError, match="failed: "):
        toolchain.Compiler((sys.executable,)).run([str(tmp_path / "absent.py")])
