"""Emulated boards: user-mode qemu, with the few files of an aarch64 user land that the RPC server needs.

Nothing is installed: the C and C++ runtime libraries come out of Debian's cross compiler, or (with ``ziglang`` as the
compiler) out of downloaded Debian packages; everything lies in the cache.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from deploy_tvm.remote.cache import cached
from irnn.errors import IrnnError

MTRIPLE = "aarch64-linux-gnu"
QEMU = "qemu-aarch64"
SYSROOT = Path("/usr") / MTRIPLE / "lib"
PACKAGES = ("libc6:arm64", "libstdc++6:arm64", "libgcc-s1:arm64", "gcc-12-base:arm64")
LIBRARIES = (
    "ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libstdc++.so.6",
    "libgcc_s.so.1",
)  # fmt: skip
DOWNLOAD_SECONDS = 600
# What Linux would say in /proc/cpuinfo: the part number and whether there are dot products.
PARTS = {"cortex-a53": ("0xd03", False), "cortex-a57": ("0xd07", False), "cortex-a72": ("0xd08", False)}
PARTS |= {"cortex-a76": ("0xd0b", True), "neoverse-n1": ("0xd0c", True)}
# The 32-bit board: TVM has no runtime for it, so it runs bundles and no server.
CPU32, QEMU32, SYSROOT32 = "cortex-a7", "qemu-arm", Path("/usr/arm-linux-gnueabihf")
MTRIPLE32 = "armv7a-linux-gnueabihf"
CPUS = (*PARTS, CPU32)


def command(cpu: str) -> list[str]:
    """The command in front of a program that is to run on an emulated ``cpu`` (one of ``CPUS``)."""
    if cpu == CPU32:
        if not (SYSROOT32 / "lib/ld-linux-armhf.so.3").exists():
            raise IrnnError(f"no C library in {SYSROOT32}: install it with  apt-get install g++-arm-linux-gnueabihf")
        return [find_qemu(QEMU32), "-cpu", cpu, "-L", str(SYSROOT32)]
    if cpu not in PARTS:
        raise IrnnError(f"device.cpu={cpu}: allowed are {', '.join(CPUS)}")
    qemu = find_qemu(QEMU)
    return [qemu, "-cpu", cpu, "-L", str(cached(f"emulated/{cpu}", lambda folder: _make_prefix(folder, cpu)))]


def find_qemu(name: str) -> str:
    """The emulator's path (Debian has it as ``qemu-user`` and as ``qemu-user-static``)."""
    for candidate in (name, f"{name}-static"):
        if found := shutil.which(candidate):
            return found
    raise IrnnError(f"no {name}: install it with  apt-get install --no-install-recommends qemu-user")


def cpu_of(mcpu: str) -> str:
    """The emulated CPU for a target's ``mcpu``: the same one, or one with the same instructions."""
    return {"generic": "cortex-a53", "cortex-a55": "cortex-a76"}.get(mcpu, mcpu)


def mtriple_of(cpu: str) -> str:
    """What an emulated CPU's programs are compiled for."""
    return MTRIPLE32 if cpu == CPU32 else MTRIPLE


def _make_prefix(folder: Path, cpu: str) -> None:
    # qemu looks every absolute path up below its prefix first: libraries, and what the host says about its own CPU.
    target = folder / "lib"
    target.mkdir()
    with_packages = not all((SYSROOT / name).exists() for name in LIBRARIES)
    source = _download(folder / "packages") if with_packages else SYSROOT
    for name in LIBRARIES:
        found = next(iter(source.rglob(name)), None)
        if found is None:
            raise IrnnError(f"{name} is missing below {source}: apt-get install --reinstall libc6-arm64-cross")
        shutil.copy(found, target / name)
    shutil.rmtree(folder / "packages", ignore_errors=True)
    (folder / "proc").mkdir()
    part, dot_products = PARTS[cpu]
    features = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid" + " atomics asimdrdm asimddp" * dot_products
    (folder / "proc" / "cpuinfo").write_text(
        f"processor\t: 0\nBogoMIPS\t: 100.00\nFeatures\t: {features}\nCPU implementer\t: 0x41\n"
        f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 1\n\n",
        encoding="ascii",
    )


def _download(folder: Path) -> Path:
    folder.mkdir()
    for tool in ("apt-get", "dpkg-deb"):
        if not shutil.which(tool):
            raise IrnnError(f"no {SYSROOT} and no {tool}: apt-get install g++-aarch64-linux-gnu  on a Debian system")
    try:
        done = subprocess.run(
            ["apt-get", "download", *PACKAGES], cwd=folder, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise IrnnError(f"downloading {', '.join(PACKAGES)} took more than {DOWNLOAD_SECONDS} s") from None
    if done.returncode:
        line = (done.stderr.strip().splitlines() or ["apt-get failed"])[-1]
        raise IrnnError(
            f"cannot download {', '.join(PACKAGES)} ({line}): apt-get install g++-aarch64-linux-gnu  brings the same "
            "files, or allow the packages with  dpkg --add-architecture arm64 && apt-get update"
        )
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", str(package), str(folder)], check=True, capture_output=True)
    return folder
