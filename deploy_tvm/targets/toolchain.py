"""Compilers that link for a target: found automatically; a missing one is named with the command that installs it.

Linux targets are linked by Debian's cross compiler, or by ``ziglang`` (a package from PyPI, no root needed).  Android
is linked by the compiler that the environment variable ``TVM_NDK_CC`` names.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from irnn.errors import IrnnError

NDK = "TVM_NDK_CC"
# The oldest glibc that ziglang links for: that of the boards' long-lived distributions (Debian 10).
ZIG_GLIBC = "2.28"
LINK_SECONDS = 600
ELF_MACHINES = {"x86_64": 62, "aarch64": 183, "armv7a": 40}


@dataclass(frozen=True)
class Platform:
    """How one ``mtriple`` is linked: Debian's prefix of its tools, its machine name, ziglang's name of it."""

    prefix: str
    machine: str
    zig: str


PLATFORMS = {
    "x86_64-linux-gnu": Platform("x86_64-linux-gnu", "x86_64", f"x86_64-linux-gnu.{ZIG_GLIBC}"),
    "aarch64-linux-gnu": Platform("aarch64-linux-gnu", "aarch64", f"aarch64-linux-gnu.{ZIG_GLIBC}"),
    "armv7a-linux-gnueabihf": Platform("arm-linux-gnueabihf", "armv7l", f"arm-linux-gnueabihf.{ZIG_GLIBC}"),
}

# Package managers: what installs a C and a C++ compiler with the C library's headers.
NATIVE_PACKAGES = {
    "apt-get": ("install gcc libc6-dev", "install g++"),
    "dnf": ("install gcc", "install gcc-c++"),
    "yum": ("install gcc", "install gcc-c++"),
    "zypper": ("install gcc", "install gcc-c++"),
    "apk": ("add gcc musl-dev", "add g++"),
    "pacman": ("-S gcc", "-S gcc"),
}


@dataclass(frozen=True)
class Compiler:
    """A command that compiles and links for one target."""

    command: tuple[str, ...]

    def run(self, arguments: Sequence[str]) -> None:
        """Run it; an ``IrnnError`` carries its first message."""
        try:
            done = subprocess.run(
                [*self.command, *arguments], capture_output=True, text=True, errors="replace", timeout=LINK_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise IrnnError(f"the compiler {' '.join(self.command)} cannot be run: {error}") from None
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            first = next((line for line in lines if "error" in line), lines[0])
            raise IrnnError(f"{' '.join(self.command)} failed: {first.strip()}")

    def static(self) -> list[str]:
        """The option for programs that run whatever C library the board has; ziglang links for an old one instead."""
        return [] if "ziglang" in self.command else ["-static"]

    def link_shared(self, output: str, objects: str | Sequence[str], **_: object) -> None:
        """Link ``objects`` into the shared library ``output``: what TVM's ``export_library`` calls."""
        objects = [objects] if isinstance(objects, str) else list(objects)
        self.run(["-shared", "-fPIC", "-o", output, *objects])


def is_android(mtriple: str) -> bool:
    """Whether the target is Android, which only its own NDK can link for."""
    return mtriple.rpartition("-")[2].startswith("android")


def find(mtriple: str, *, cxx: bool = False) -> Compiler:
    """The C compiler (C++: ``cxx``) for ``mtriple``, or an ``IrnnError`` with the command that installs one."""
    if is_android(mtriple):
        return _ndk(mtriple)
    if mtriple not in PLATFORMS:
        raise IrnnError(f"no compiler is known for {mtriple}: known are {', '.join(PLATFORMS)}")
    wanted, name = PLATFORMS[mtriple], "g++" if cxx else "gcc"
    native = platform.system() == "Linux" and platform.machine() == wanted.machine
    plain = ("c++", "g++", "clang++") if cxx else ("cc", "gcc", "clang")
    for candidate in [f"{wanted.prefix}-{name}", *(plain if native else ())]:
        if shutil.which(candidate):
            return Compiler((candidate,))
    if importlib.util.find_spec("ziglang"):
        return Compiler((sys.executable, "-m", "ziglang", "c++" if cxx else "cc", "-target", wanted.zig))
    package = _package(wanted, native, cxx)
    advice = f"{package}  or (no root)  pip install ziglang" if package else "pip install ziglang"
    raise IrnnError(f"no {'C++' if cxx else 'C'} compiler for {mtriple}: install one with  {advice}")


def _package(wanted: Platform, native: bool, cxx: bool) -> str | None:
    """The command that installs the compiler by this machine's own package manager; None where it has no such package.

    Only Debian's cross compilers bring a C library of the target along.
    """
    if native:
        found = next((manager for manager in NATIVE_PACKAGES if shutil.which(manager)), None)
        return found and f"{found} {NATIVE_PACKAGES[found][cxx]}"
    return f"apt-get install g++-{wanted.prefix.replace('_', '-')}" if shutil.which("apt-get") else None


def _ndk(mtriple: str) -> Compiler:
    command = os.environ.get(NDK)
    if not command:
        raise IrnnError(
            f"no compiler for {mtriple}: set {NDK} to the NDK's clang, for example "
            "NDK/toolchains/llvm/prebuilt/linux-x86_64/bin/aarch64-linux-android24-clang"
        )
    if not shutil.which(command):
        raise IrnnError(f"{NDK}={command}: there is no such program")
    return Compiler((command,))


def collect_objects(folder: Path) -> Callable[..., None]:
    """For ``export_library`` where nothing can link: put the object files into ``folder`` instead."""

    def collect(output: str, objects: str | Sequence[str], **_: object) -> None:
        for path in [objects] if isinstance(objects, str) else objects:
            shutil.copy(path, folder)

    return collect


def elf_machine(path: Path) -> int:
    """``e_machine`` of an ELF file (little-endian), or an ``IrnnError``."""
    with open(path, "rb") as file:
        header = file.read(20)
    if len(header) < 20 or header[:4] != b"\x7fELF" or header[5] != 1:
        raise IrnnError(f"{path} is no little-endian ELF file")
    return int.from_bytes(header[18:20], "little")


def check_elf(path: Path, mtriple: str) -> None:
    """Refuse a file that was made for another kind of machine than ``mtriple``."""
    expected, found = ELF_MACHINES[mtriple.split("-")[0]], elf_machine(path)
    if found != expected:
        raise IrnnError(f"{path} is for ELF machine {found}, {mtriple} is {expected}")
