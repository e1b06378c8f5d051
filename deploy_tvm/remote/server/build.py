"""Builds the RPC server for a device: one program and the three libraries of TVM's runtime, about 7 MB."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import tvm

from deploy_tvm.remote.cache import cached
from deploy_tvm.targets import toolchain
from irnn.errors import IrnnError

BINARY = "irnn-rpc-server"
SOURCES = Path(__file__).parent
LIBRARIES = ("tvm_ffi/lib/libtvm_ffi.so", "tvm/lib/libtvm_runtime.so", "tvm/lib/libtvm_runtime_extra.so")
WHEELS = ("apache-tvm", "apache-tvm-ffi")
# glibc versions for which wheels are published.
MANYLINUX = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_24", "manylinux_2_17")
DOWNLOAD_SECONDS = 900


def server_folder(mtriple: str) -> Path:
    """The folder with the server for ``mtriple`` (x86_64 or aarch64 under Linux), from the cache or made now."""
    machine = mtriple.split("-")[0]
    if mtriple not in ("x86_64-linux-gnu", "aarch64-linux-gnu"):
        raise IrnnError(
            f"there is no TVM runtime for {mtriple}, so no RPC server either: take `bundle`, which needs no TVM "
            "on the board"
        )
    compiler = toolchain.find(mtriple, cxx=True)
    libraries = runtime_libraries(machine)

    def make(folder: Path) -> None:
        for name in LIBRARIES:
            shutil.copy(libraries / name, folder)
        _compile(compiler, folder)
        toolchain.check_elf(folder / BINARY, mtriple)

    return cached(f"rpc-server/{machine}-{_key(compiler)}", make)


def runtime_libraries(machine: str) -> Path:
    """A folder in which ``LIBRARIES`` for ``machine`` stand: this installation's own, or those of downloaded wheels."""
    if machine == platform.machine():
        return _folder_of("tvm").parent
    return cached(f"tvm-runtime/{machine}-{version('apache-tvm')}-{version('apache-tvm-ffi')}", _downloader(machine))


def _folder_of(module: str) -> Path:
    found = find_spec(module)
    if found is None or found.origin is None:
        raise IrnnError(f"{module} is not installed as a package with files: pip install 'irnn[tvm]'")
    return Path(found.origin).parent


def _downloader(machine: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        wheels = [f"{name}=={version(name)}" for name in WHEELS]
        platforms = [word for name in MANYLINUX for word in ("--platform", f"{name}_{machine}")]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *platforms]
        try:
            done = subprocess.run(
                [*command, "--dest", str(folder), *wheels], capture_output=True, text=True, timeout=DOWNLOAD_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise IrnnError(f"downloading {' and '.join(wheels)} took more than {DOWNLOAD_SECONDS} s") from None
        if done.returncode:
            line = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
            raise IrnnError(f"cannot download {' and '.join(wheels)} for {machine}: {line}")
        for wheel in folder.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                for name in set(LIBRARIES) & set(archive.namelist()):
                    archive.extract(name, folder)
            wheel.unlink()

    return make


def _compile(compiler: toolchain.Compiler, folder: Path) -> None:
    include = _folder_of("tvm_ffi") / "include"
    libraries = [f"-l{Path(name).stem.removeprefix('lib')}" for name in LIBRARIES]
    compiler.run(
        [
            "-std=c++17", "-O2", f"-I{include}", f'-DIRNN_TVM_VERSION="{tvm.__version__}"',
            str(SOURCES / "rpc_server.cc"), "-o", str(folder / BINARY), f"-L{folder}",
            # Nothing in the program names the runtime's symbols: it registers functions as it is loaded.
            "-Wl,--no-as-needed", *libraries, "-Wl,-rpath,$ORIGIN", "-pthread",
        ]
    )  # fmt: skip


def _key(compiler: toolchain.Compiler) -> str:
    """Changes with the sources, the versions and the compiler."""
    parts = [path.read_text(encoding="utf-8") for path in sorted(SOURCES.iterdir()) if path.suffix in (".cc", ".h")]
    parts += [version(name) for name in WHEELS] + [" ".join(compiler.command)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
