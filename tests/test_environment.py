"""What a user's machine may lack or refuse: one line each, before any work is done."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

import deploy_tvm
from deploy_tvm.__main__ import main as deploy_main
from deploy_tvm.remote.cache import cached
from deploy_tvm.targets import toolchain
from irnn import places
from irnn.errors import IrnnError
from irnn.program.sets import ProgramSet
from pipelines.core import deploy, stages, training
from tests.support import needs
from tests.support.places import ROOT
from tests.support.random_programs import Spec, random_program
from tests.support.tiny_run import call_run, tiny_overrides
from tests.support.tiny_speech import tiny_speech_overrides

needs_tvm = needs.with_tvm


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Running any stage fails the test."""
    monkeypatch.setattr(stages, "run_stage", lambda stage: pytest.fail(f"the stage {stage.name} ran"))


@pytest.fixture
def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which nothing can be made, also by root."""
    folder = tmp_path / "read_only"
    folder.mkdir()
    refused = OSError(errno.EROFS, os.strerror(errno.EROFS))

    def guarded(function):
        def call(path, *rest, **named):
            if Path(path).absolute() != folder and Path(path).absolute().is_relative_to(folder):
                raise refused
            return function(path, *rest, **named)

        return call

    def temporary(*_, dir=None, **named):
        if Path(dir).absolute().is_relative_to(folder):
            raise refused
        return original(dir=dir, **named)

    original = places.tempfile.TemporaryFile
    monkeypatch.setattr(places.tempfile, "TemporaryFile", temporary)
    for name in ("mkdir", "open"):
        monkeypatch.setattr(Path, name, guarded(getattr(Path, name)))
    return folder


def place(kind: str, tmp_path: Path, read_only: Path) -> tuple[Path, str]:
    """(a place that nothing can be written to, what a message says of it)."""
    file = tmp_path / "file"
    file.write_text("kept")
    return {
        "file": (file, f"{file} is a file"),
        "below a file": (file / "a" / "b", f"{file} is a file, not a folder; name another place"),
        "read-only": (read_only / "a", "Read-only file system"),
        "proc": (Path("/proc/irnn/a"), "No such file or directory"),
    }[kind]


def stopped(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The one line of a command of `deploy_tvm` that fails."""
    assert deploy_main(arguments) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    return line


class TestRun:
    def line(self, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
        with pytest.raises(SystemExit) as caught:
            call_run(monkeypatch, *arguments)
        line = str(caught.value.code)
        assert line.startswith("error: ")
        assert "\n" not in line
        return line

    @pytest.mark.parametrize(
        ("cuda", "why"),
        [(None, "is built for CPUs alone; set trainer.accelerator=cpu"), ("13.0", "finds no GPU on this machine")],
    )
    def test_a_gpu_that_is_not_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda, why: str) -> None:
        for accelerator in (training.CUDAAccelerator, training.MPSAccelerator):
            monkeypatch.setattr(accelerator, "is_available", staticmethod(lambda: False))
        monkeypatch.setattr(training.torch.version, "cuda", cuda)
        monkeypatch.setattr(training.torch.version, "hip", None)
        monkeypatch.setattr("pipelines.run.problem_of", lambda config: pytest.fail("the data was read"))
        line = self.line(monkeypatch, *tiny_overrides(tmp_path), "trainer.accelerator=gpu")
        assert line.startswith("error: trainer.accelerator=gpu: PyTorch ")
        assert why in line
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("sweep", [[], ["-m"]])
    @pytest.mark.parametrize("kind", ["file", "below a file", "read-only", "proc"])
    def test_an_output_folder_that_cannot_be(
        self, tmp_path: Path, read_only: Path, monkeypatch: pytest.MonkeyPatch, kind: str, sweep: list[str]
    ) -> None:
        monkeypatch.setattr("pipelines.run.problem_of", lambda config: pytest.fail("the data was read"))
        folder, why = place(kind, tmp_path, read_only)
        line = self.line(monkeypatch, *sweep, *tiny_overrides(tmp_path), f"output_dir={folder}")
        assert line.startswith(f"error: output_dir={folder}: ")
        assert why in line

    def test_an_output_folder_without_a_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        line = self.line(monkeypatch, *tiny_overrides(tmp_path), "output_dir=null")
        assert line == "error: output_dir=None has the wrong type; wanted: the name of a folder"

    @pytest.mark.parametrize("kind", ["file", "below a file", "proc"])
    def test_a_feature_cache_that_cannot_be(
        self, tmp_path: Path, read_only: Path, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        folder, _ = place(kind, tmp_path, read_only)
        overrides = [*tiny_speech_overrides(tmp_path), f"data.cache_dir={folder}"]
        line = self.line(monkeypatch, *overrides)
        assert line.startswith(f"error: the feature cache {folder}/synthetic")
        assert line.endswith("set data.cache_dir")

    @needs_tvm
    def test_a_compiler_is_missed_before_training(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, untrained: None
    ) -> None:
        only(monkeypatch, "apt-get")
        line = self.line(monkeypatch, *tiny_overrides(tmp_path))
        assert line == (
            "error: no C compiler for x86_64-linux-gnu: install one with  apt-get install gcc libc6-dev  or (no root)  "
            "pip install ziglang"
        )

    @needs_tvm
    def test_who_does_not_compile_needs_no_compiler(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        only(monkeypatch)
        call_run(monkeypatch, *tiny_overrides(tmp_path), "recipe.float.epochs=1", "until=float")

    @needs_tvm
    def test_a_broken_tvm_is_told_before_training(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, untrained: None
    ) -> None:
        break_import(monkeypatch, "tvm", OSError("libtvm_runtime.so: cannot open shared object file"))
        line = self.line(monkeypatch, *tiny_overrides(tmp_path))
        assert "TVM is installed but cannot be imported (libtvm_runtime.so: cannot open shared object file)" in line
        assert "pip install --force-reinstall 'irnn[tvm]'" in line

    def test_wandb_without_a_key(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        needs.packages("wandb", "wandb")
        import wandb

        def unknown(**_: object) -> None:
            raise wandb.errors.UsageError("No API key configured.\nMore of it.")

        monkeypatch.setattr(wandb, "init", unknown)
        line = self.line(monkeypatch, *tiny_overrides(tmp_path), "until=float", "logger=wandb", "logger.wandb=online")
        assert line == (
            "error: logger.wandb=online cannot begin (No API key configured.); log in with `wandb login`, or set "
            "logger.wandb=offline"
        )

    @pytest.mark.parametrize(
        ("number", "why"),
        [(errno.ENOSPC, "no space left on the disk"), (errno.EROFS, "the file system has become read-only")],
    )
    def test_a_disk_that_fails_on_the_way(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, why: str
    ) -> None:
        def fails(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("pipelines.core.manifest.os.fsync", fails)
        line = self.line(monkeypatch, *tiny_overrides(tmp_path), "until=float")
        assert why in line
        assert line.endswith("the same command goes on from the last finished epoch")


def only(monkeypatch: pytest.MonkeyPatch, *programs: str) -> None:
    """A machine that has these programs and no others, and no ziglang."""
    monkeypatch.setattr(shutil, "which", lambda name: name if name in programs else None)
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None if name == "ziglang" else object())


def break_import(monkeypatch: pytest.MonkeyPatch, package: str, error: Exception) -> None:
    """`package` is found, and importing it raises `error`, as if nobody had imported it before."""

    class Broken:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
            return ModuleSpec(name, Broken) if name == package else None

        @staticmethod
        def create_module(spec: ModuleSpec) -> None:
            return None

        @staticmethod
        def exec_module(module: object) -> None:
            raise error

    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken, *sys.meta_path])


@needs_tvm
class TestDeploy:
    @pytest.mark.parametrize("kind", ["file", "below a file", "read-only", "proc"])
    @pytest.mark.parametrize("several", [False, True])
    def test_an_artefact_that_cannot_be_written(
        self, tmp_path: Path, read_only: Path, capsys, monkeypatch: pytest.MonkeyPatch, kind: str, several: bool
    ) -> None:
        program = random_program(Spec())
        (ProgramSet({"part": program}) if several else program).save(tmp_path / "program")
        monkeypatch.setattr("deploy_tvm.artefact.artefact.compile_program", lambda *_: pytest.fail("it was compiled"))
        folder, why = place(kind, tmp_path, read_only)
        out = folder / "lib" if kind == "read-only" else folder
        assert why in stopped(capsys, ["compile", str(tmp_path / "program"), f"out={out}"])

    @pytest.mark.parametrize("kind", ["file", "below a file", "read-only", "proc"])
    def test_a_program_that_cannot_be_written(self, tmp_path: Path, read_only: Path, kind: str) -> None:
        folder, why = place(kind, tmp_path, read_only)
        folder = folder / "program" if kind == "read-only" else folder
        with pytest.raises(IrnnError, match="Not a directory" if kind == "file" else why):
            random_program(Spec()).save(folder)

    @pytest.mark.parametrize("kind", ["below a file", "read-only", "proc", "folder"])
    def test_a_result_that_cannot_be_written(
        self, tmp_path: Path, read_only: Path, capsys, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        monkeypatch.setattr("deploy_tvm.cli.bench._bench_here", lambda *_: pytest.fail("it was timed"))
        file, why = (tmp_path, "is a folder; name a file") if kind == "folder" else place(kind, tmp_path, read_only)
        why = {"below a file": "does not exist", "proc": "does not exist"}.get(kind, why)
        layer = ["bench", "--layer", "lstm", "--input", "4", "--hidden", "4", "--json", str(file)]
        line = stopped(capsys, layer)
        assert line.startswith(f"error: --json {file}: ")
        assert why in line

    def test_trying_a_file_leaves_it_as_it_is(self, tmp_path: Path) -> None:
        old, new = tmp_path / "old.json", tmp_path / "new.json"
        old.write_text(json.dumps([1]))
        for path in (old, new):
            places.need_file(path, f"--json {path}")
        assert old.read_text() == "[1]"
        assert not new.exists()

    @pytest.mark.parametrize("kind", ["file", "below a file", "read-only", "proc"])
    def test_a_cache_that_cannot_be_written(
        self, tmp_path: Path, read_only: Path, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(place(kind, tmp_path, read_only)[0]))
        with pytest.raises(IrnnError, match=r"cannot prepare .*name another place .*XDG_CACHE_HOME") as caught:
            cached("thing/one", lambda folder: None)
        assert "\n" not in str(caught.value)

    def test_a_user_without_a_home(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def homeless(path: Path) -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(Path, "expanduser", homeless)
        with pytest.raises(IrnnError, match=r"~/\.cache: there is no home folder; set the environment variable HOME"):
            cached("thing/one", lambda folder: None)

    def test_a_compiler_is_missed_before_compilation(self, tmp_path: Path, capsys, monkeypatch) -> None:
        random_program(Spec()).save(tmp_path / "program")
        monkeypatch.setattr("deploy_tvm.artefact.artefact.compile_program", lambda *_: pytest.fail("it was compiled"))
        only(monkeypatch, "dnf")
        line = stopped(capsys, ["compile", str(tmp_path / "program"), f"out={tmp_path / 'lib'}"])
        assert "no C compiler for x86_64-linux-gnu: install one with  dnf install gcc  or (no root)" in line

    @pytest.mark.parametrize("error", [OSError("no libtvm.so"), ImportError("no FFI"), AttributeError("ffi.x")])
    def test_a_broken_tvm_is_one_line(self, capsys, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        break_import(monkeypatch, "tvm", error)
        assert f"TVM is installed but cannot be imported ({error})" in stopped(capsys, ["bench", "--layer", "lstm"])

    def test_an_absent_tvm_is_one_line(self, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "tvm", None)
        line = stopped(capsys, ["doctor"])
        assert line == "error: the package tvm is missing: pip install 'irnn[tvm]'"


@pytest.mark.parametrize(
    ("manager", "cxx", "command"),
    [
        ("apt-get", False, "apt-get install gcc libc6-dev"),
        ("apt-get", True, "apt-get install g++"),
        ("dnf", True, "dnf install gcc-c++"),
        ("apk", False, "apk add gcc musl-dev"),
        ("pacman", False, "pacman -S gcc"),
        ("zypper", False, "zypper install gcc"),
    ],
)
def test_this_machines_compiler_comes_from_its_own_packages(
    monkeypatch: pytest.MonkeyPatch, manager: str, cxx: bool, command: str
) -> None:
    only(monkeypatch, manager)
    monkeypatch.setattr(toolchain.platform, "machine", lambda: "x86_64")
    with pytest.raises(IrnnError) as caught:
        toolchain.find("x86_64-linux-gnu", cxx=cxx)
    assert f"install one with  {command}  or (no root)  pip install ziglang" in str(caught.value)


@pytest.mark.parametrize("managers", [(), ("dnf",), ("pacman", "apk")])
def test_cross_compilers_are_debians_or_ziglang(monkeypatch: pytest.MonkeyPatch, managers: tuple[str, ...]) -> None:
    only(monkeypatch, *managers)
    monkeypatch.setattr(toolchain.platform, "machine", lambda: "x86_64")
    with pytest.raises(IrnnError, match=r"for aarch64-linux-gnu: install one with  pip install ziglang$"):
        toolchain.find("aarch64-linux-gnu")


class TestMakefile:
    def make(self, tmp_path: Path, script: str) -> subprocess.CompletedProcess[str]:
        """`make run` on a fresh copy where Python is `script` (of /bin/sh)."""
        if shutil.which("make") is None:
            needs.skip("make", "no make on this machine")
        for name in ("Makefile", "pyproject.toml"):
            shutil.copy(ROOT / name, tmp_path)
        python = tmp_path / "python-for-make"
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        command = ["make", "run", f"PYTHON={python}"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    @pytest.mark.parametrize(
        ("script", "line"),
        [
            # As a Python without ensurepip and one that is too old answer the Makefile's questions.
            (
                'case "$2" in *ensurepip*) exit 1;; esac',
                "cannot make virtual environments: apt-get install python3-venv",
            ),
            (
                'case "$2" in *version_info*) exit 1;; esac; echo Python 3.9.2',
                "is Python 3.9.2, 3.11 or later is needed",
            ),
        ],
    )
    def test_a_python_that_will_not_do(self, tmp_path: Path, script: str, line: str) -> None:
        done = self.make(tmp_path, script)
        assert done.returncode == 2
        first = done.stderr.splitlines()[0]
        assert first.startswith("error: ")
        assert line in first
        assert not (tmp_path / ".venv").exists()

    def test_no_python(self, tmp_path: Path) -> None:
        if shutil.which("make") is None:
            needs.skip("make", "no make on this machine")
        shutil.copy(ROOT / "Makefile", tmp_path)
        (tmp_path / "pyproject.toml").touch()
        done = subprocess.run(
            ["make", "run", "PYTHON=python9"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert done.stderr.startswith("error: there is no python9: install Python 3.11 or later, or name one: make ")


def test_need_tvm_is_silent_where_tvm_is_well() -> None:
    if deploy.available():
        deploy_tvm.need_tvm()
