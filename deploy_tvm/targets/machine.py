"""What a figure was measured on: CPU, load, versions."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# Flags that decide which kernels a runtime uses; Linux's names.
TELLING_FLAGS = (
    "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_int8", "asimd", "asimddp", "i8mm",
    "sve",
)  # fmt: skip
# Of those, the ones that tell how a CPU multiplies integers; and what tells CPUs apart that hide behind one name.
MULTIPLYING_FLAGS = ("avx2", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
FAMILY = ("cpu family", "model", "CPU implementer", "CPU part")
OUR_PACKAGES = ("irnn", "apache-tvm", "apache-tvm-ffi", "torch", "numpy")


def describe() -> dict[str, Any]:
    """CPU name and family, its telling flags, cores, load average (1, 5, 15 minutes), system, Python."""
    fields = _cpuinfo()
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    return {
        "cpu": fields.get("model name", platform.processor() or platform.machine()),
        "family": "-".join(fields[key] for key in FAMILY if key in fields),
        "flags": [flag for flag in TELLING_FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
    }


def kind(described: dict[str, Any]) -> str:
    """A name for machines like the one that :func:`describe` described: CPU, family, flags; of a-z, 0-9 and _."""
    model = re.sub(r"\((?:R|TM|C)\)|\bCPU\b|@.*", " ", described["cpu"], flags=re.IGNORECASE)
    words = [model, described["family"], *(flag for flag in MULTIPLYING_FLAGS if flag in described["flags"])]
    return re.sub(r"[^a-z0-9]+", "_", " ".join(words).lower()).strip("_")


def versions() -> dict[str, str]:
    """Versions of the packages on our side, where installed."""
    found = {}
    for package in OUR_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def default_core() -> int | None:
    """The core that everything is pinned to: the first allowed one; None where the system cannot pin."""
    return min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
