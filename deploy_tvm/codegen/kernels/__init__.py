"""Matrix-vector kernels and table look-ups, one file an instruction set; :func:`choose` picks by the CPU's features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deploy_tvm.codegen.emitter import Emitter
from deploy_tvm.codegen.kernels import arm_neon, armv7_neon
from deploy_tvm.codegen.kernels.arm_dotprod import Dot4, Dot8
from deploy_tvm.codegen.kernels.arm_i8mm import Matrix8
from deploy_tvm.codegen.kernels.arm_neon import Neon4, Neon8
from deploy_tvm.codegen.kernels.arm_tables import A64, NeonOps
from deploy_tvm.codegen.kernels.base import LinearKernel
from deploy_tvm.codegen.kernels.portable import PortableKernel, PortableKernel4
from deploy_tvm.codegen.kernels.x86_avx2 import Avx2Kernel4, Avx2Kernel8
from deploy_tvm.codegen.kernels.x86_tables import PermutingOps
from deploy_tvm.codegen.kernels.x86_vnni import Vnni4, Vnni8
from deploy_tvm.codegen.rows import RowOps
from irnn.program import Tensor

__all__ = ["Kernels", "LinearKernel", "choose"]


@dataclass(frozen=True)
class Kernels:
    """What a target offers: kernels by width of weights, and how rows are evaluated (``ops``)."""

    name: str
    int8: LinearKernel
    int4: LinearKernel
    float32: LinearKernel
    ops: Callable[[Emitter], RowOps]

    def linear(self, weight: Tensor) -> LinearKernel:
        """The kernel for a weight matrix."""
        if weight.data.dtype == np.float32:
            return self.float32
        return self.int4 if weight.bits <= 4 else self.int8


def choose(features: frozenset[str], *, arm32: bool = False) -> Kernels:
    """The fastest kernels that a CPU with ``features`` (LLVM names) can run; ``arm32``: its registers are ARMv7's."""
    if "neon" in features:
        return _choose_arm(features, arm32)
    if {"avx512vnni", "avx512bw", "avx512vl"} <= features:
        return Kernels(
            "avx512vnni",
            Vnni8(16),
            Vnni4(16),
            PortableKernel(16, 4, "float32", 6),
            lambda emitter: PermutingOps(emitter, 16),
        )
    if "avx2" in features:
        vnni = "avxvnni" in features
        return Kernels(
            "avxvnni" if vnni else "avx2",
            Vnni8(8) if vnni else Avx2Kernel8(),
            Vnni4(8) if vnni else Avx2Kernel4(),
            PortableKernel(8, 4, "float32"),
            lambda emitter: PermutingOps(emitter, 8),
        )
    return Kernels(
        "portable",
        PortableKernel(4, 4),
        PortableKernel4(4, 4),
        PortableKernel(4, 4, "float32"),
        lambda emitter: RowOps(emitter, 8),
    )


def _choose_arm(features: frozenset[str], arm32: bool) -> Kernels:
    if arm32:
        return Kernels(
            "armv7_neon",
            Neon8(armv7_neon.ARITHMETIC, units=4, groups=4, tile_vectors=1),
            Neon4(armv7_neon.ARITHMETIC, units=4, groups=4, tile_vectors=1),
            PortableKernel(4, 8, "float32", 1, group=2),
            lambda emitter: NeonOps(emitter, armv7_neon.INSTRUCTIONS),
        )
    if "dotprod" in features:
        matrix = "i8mm" in features
        return Kernels(
            "arm_i8mm" if matrix else "arm_dotprod",
            Matrix8() if matrix else Dot8(),
            Dot4(),
            PortableKernel(4, 16, "float32", 1, group=2),
            lambda emitter: NeonOps(emitter, A64),
        )
    return Kernels(
        "arm_neon",
        Neon8(arm_neon.A64, units=4, groups=4, tile_vectors=3),
        Neon4(arm_neon.A64, units=8, groups=4, tile_vectors=1),
        PortableKernel(4, 8, "float32", 3, group=4),
        lambda emitter: NeonOps(emitter, A64),
    )
