"""The sets of x86 kernels, each on a CPU for which it is the best."""

from __future__ import annotations

from deploy_tvm import targets
from tests.support import needs

CPUS = {
    "amx": targets.Target("sapphirerapids", mcpu="sapphirerapids"),
    "avx512vnni": targets.Target("icelake", mcpu="icelake-server"),
    "avxvnni": targets.Target("alderlake", mcpu="alderlake"),
    "avx2": targets.Target("haswell", mcpu="haswell"),
    "portable": targets.Target("any", mcpu="x86-64"),
}


def missing(cpu: str) -> list[str]:
    """The features of these kernels' CPU that this machine lacks."""
    return sorted(CPUS[cpu].features() - targets.cpu_flags())


def runnable(cpu: str) -> targets.Target:
    """The target, or a skip where this machine cannot run it."""
    needs.features(missing(cpu))
    return CPUS[cpu]


def best() -> str:
    """The fastest kernels that this machine can run."""
    return next(cpu for cpu in CPUS if not missing(cpu))
