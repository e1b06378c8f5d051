"""Targets: what to compile for, from ``conf/target/*.yaml`` or the machine at hand."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from importlib import resources
from typing import Any

import tvm
import yaml

from deploy_tvm.codegen.kernels import Kernels, choose
from irnn.errors import IrnnError

# LLVM's names of the features that choose() asks for.
X86_FEATURES = (
    "avx2", "avxvnni", "avx512f", "avx512bw", "avx512vl", "avx512vnni", "avx512vbmi", "avx512vpopcntdq",
    "amx-tile", "amx-int8",
)  # fmt: skip
ARM_FEATURES = ("neon", "dotprod", "i8mm")
# What Linux calls some of them.
LINUX_NAMES = {
    "avx512_vnni": "avx512vnni",
    "avx_vnni": "avxvnni",
    "avx512_vpopcntdq": "avx512vpopcntdq",
    "amx_tile": "amx-tile",
    "amx_int8": "amx-int8",
    "asimd": "neon",
    "asimddp": "dotprod",
}
NATIVE = "native"


@dataclass(frozen=True)
class Target:
    """A machine to compile for: LLVM's ``mtriple``, ``mcpu`` and ``mattr`` (features to add or take away).

    ``mfloat_abi``: "hard" where floats travel in registers that the triple alone does not promise (32-bit ARM).
    """

    name: str
    kind: str = "llvm"
    mtriple: str = "x86_64-linux-gnu"
    mcpu: str = NATIVE
    mattr: tuple[str, ...] = field(default_factory=tuple)
    mfloat_abi: str | None = None

    def resolve(self) -> Target:
        """With the machine's own CPU in the place of ``mcpu: native``, its features checked against the CPU's flags.

        LLVM names a CPU by its model number, and a virtual machine may show another one than its CPU has, or hide
        features: what the operating system does not show is off, and what it shows is on.
        """
        if self.mcpu != NATIVE:
            return self
        flags = cpu_flags()
        hidden = tuple(f"-{f}" for f in X86_FEATURES if f not in flags)
        named = replace(self, mcpu=tvm.target.codegen.llvm_get_system_cpu(), mattr=())
        shown = tuple(f"+{f}" for f in X86_FEATURES if f in flags - named.features())
        return replace(named, mattr=(*hidden, *shown, *self.mattr))

    def tvm(self) -> tvm.target.Target:
        """TVM's target object."""
        given: dict[str, Any] = {"kind": self.kind, "mtriple": self.mtriple, "mcpu": self.mcpu, "num-cores": 1}
        if self.mattr:
            given["mattr"] = list(self.mattr)
        if self.mfloat_abi:
            given["mfloat-abi"] = self.mfloat_abi
        return tvm.target.Target(given)

    def features(self) -> frozenset[str]:
        """Those of ``X86_FEATURES`` or ``ARM_FEATURES`` that the target has."""
        target = self.tvm()
        known: tuple[str, ...] = X86_FEATURES if self.mtriple.startswith("x86") else ARM_FEATURES
        if "linux" not in self.mtriple:  # the kernels ask Linux for matrix tiles
            known = tuple(f for f in known if not f.startswith("amx"))
        return frozenset(f for f in known if tvm.target.codegen.llvm_cpu_has_features(f, target))

    def kernels(self) -> Kernels:
        """The kernels for this target."""
        return choose(self.features(), arm32=self.mtriple.startswith("armv7"))


def cpu_flags() -> frozenset[str]:
    """The features that the operating system reports, in LLVM's spelling."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            lines = [line for line in file if line.startswith(("flags", "Features"))]
    except OSError:
        return frozenset()
    words = lines[0].split(":", 1)[1].split() if lines else []
    return frozenset(LINUX_NAMES.get(word, word) for word in words)


def names() -> list[str]:
    """The targets that ``conf/target`` describes."""
    folder = resources.files("conf") / "target"
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))


def find(name: str) -> Target:
    """The target of that name in ``conf/target``."""
    known = names()
    if name not in known:
        raise IrnnError(f"unknown target {name!r}: the targets are {', '.join(known)} (conf/target/*.yaml)")
    text = (resources.files("conf") / "target" / f"{name}.yaml").read_text(encoding="utf-8")
    return from_config(yaml.safe_load(text))


def from_config(config: dict[str, Any]) -> Target:
    """The target of a configuration: ``name``, ``kind``, ``mtriple``, ``mcpu``, ``mattr``, ``mfloat_abi``."""
    allowed = [f.name for f in fields(Target)]
    if set(config) - set(allowed) or "name" not in config:
        raise IrnnError(f"target configuration has {sorted(config)}: it takes {', '.join(allowed)}, and needs name")
    if config.get("kind", "llvm") != "llvm":
        raise IrnnError(f"target kind {config['kind']!r}: only llvm (CPUs) is supported")
    return Target(**{**config, "mattr": tuple(config.get("mattr") or ())})
