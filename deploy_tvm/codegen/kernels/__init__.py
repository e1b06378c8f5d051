"""Matrix-vector kernels and table look-ups, one file an instruction set; :func:`choose` picks by the CPU's features.

A weight matrix takes the kernel that its encoding has in the set, else the one for 8 bits.  Each kernel says for which
weights it is proved (``LinearKernel.weights``): a matrix that holds others takes the generic kernel for 16 bits, which
multiplies int16 operands on every target, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from deploy_tvm.codegen.emitter import Emitter
from deploy_tvm.codegen.kernels import arm_neon, armv7_neon, x86_amx
from deploy_tvm.codegen.kernels.arm_arithmetic import NeonOps
from deploy_tvm.codegen.kernels.arm_codebook import DotCodebook, NeonCodebook
from deploy_tvm.codegen.kernels.arm_dotprod import Dot8, DotFields
from deploy_tvm.codegen.kernels.arm_i8mm import Matrix8
from deploy_tvm.codegen.kernels.arm_lookup import LookUp
from deploy_tvm.codegen.kernels.arm_neon import Neon8, NeonFields
from deploy_tvm.codegen.kernels.arm_tables import A64
from deploy_tvm.codegen.kernels.arm_words import ArmWordKernel
from deploy_tvm.codegen.kernels.base import LinearKernel
from deploy_tvm.codegen.kernels.fields import CRUMB, NIBBLE, SIGN
from deploy_tvm.codegen.kernels.parts import Parts
from deploy_tvm.codegen.kernels.popcount import CODES, PopcountKernel
from deploy_tvm.codegen.kernels.portable import FloatKernel, PortableKernel, PortableKernel4, WideKernel
from deploy_tvm.codegen.kernels.walsh import WalshKernel, is_walsh
from deploy_tvm.codegen.kernels.x86_amx import Amx
from deploy_tvm.codegen.kernels.x86_arithmetic import X86Ops
from deploy_tvm.codegen.kernels.x86_avx2 import Avx2Fields, Avx2Kernel8
from deploy_tvm.codegen.kernels.x86_codebook import Avx2Codebook, VnniCodebook
from deploy_tvm.codegen.kernels.x86_pairs import Avx2Pairs
from deploy_tvm.codegen.kernels.x86_vnni import Vnni8, VnniFields
from deploy_tvm.codegen.kernels.x86_words import X86WordKernel
from deploy_tvm.codegen.row_ops import RowOps
from irnn.program import Tensor

__all__ = ["X86_SETS", "Kernels", "LinearKernel", "choose"]

# The sets of x86, the fastest first, by the features (LLVM's names) that they need.
X86_SETS = {
    "amx": frozenset({"amx-int8", "amx-tile", "avx512vnni", "avx512bw", "avx512vl"}),
    "avx512vnni": frozenset({"avx512vnni", "avx512bw", "avx512vl"}),
    "avxvnni": frozenset({"avx2", "avxvnni"}),
    "avx2": frozenset({"avx2"}),
    "portable": frozenset[str](),
}


# What fits a nibble: its weights go to the kernels for 4 bits.
NIBBLES = ("int4", "int3", "int2", "ternary")
# Encodings whose kernels are the faster ones for an encoding's matrix that has no weight beyond theirs, in their order.
# A codebook may hold two's complement in full (`full_range`), of which nothing has to be looked up.
WITHIN = {"int2": ("ternary", "int2"), "codebook": ("int2", "int4", "codebook", "int8")}


@dataclass(frozen=True)
class Kernels:
    """What a target offers: kernels by the encoding of weights, and how rows are evaluated (``ops``).

    encodings: kernels of their own.  int8: for every other encoding.  int16: for weights and operands of up to 16 bits.
    popcount: by the number of codes that an operand is made of, for binary weights.  parts: which operands of 16 bits
    are multiplied byte by byte where weights have few bits: of "none", those of run-time "codes", or "all".
    """

    name: str
    encodings: Mapping[str, LinearKernel]
    int8: LinearKernel
    int16: LinearKernel
    float32: LinearKernel
    ops: Callable[[Emitter], RowOps]
    popcount: Callable[[int], LinearKernel]
    parts: str = "codes"

    def linear(self, weight: Tensor, operand: str = "int8", codes: int | None = None) -> LinearKernel:
        """The kernel for a weight matrix and an operand of that dtype.

        codes: of how many binary codes the operand is, where those were found.
        """
        if weight.data.dtype == np.float32:
            return self.float32
        if is_walsh(weight):
            return WalshKernel(self.int8.lanes, len(weight.data), operand)
        if operand == "int16":
            if codes in CODES and weight.encoding == "binary":
                counting = self.popcount(codes)
                if counting.proved_for(weight.data):
                    return counting
            bytewise = self.linear(weight)
            small = bytewise not in (self.encodings.get("int8"), self.int8, self.int16)
            wanted = self.parts == "all" or (self.parts == "codes" and codes is not None)
            return Parts(bytewise) if small and wanted else self.int16
        names = WITHIN.get(weight.encoding, (weight.encoding,))
        own = [self.encodings[name] for name in names if name in self.encodings]
        proved = next(kernel for kernel in (*own, self.int8, self.int16) if kernel.proved_for(weight.data))
        return proved.of(weight.data)


def choose(features: frozenset[str], *, arm32: bool = False) -> Kernels:
    """The fastest kernels that a CPU with ``features`` (LLVM names) can run; ``arm32``: its registers are ARMv7's."""
    if "neon" in features:
        return _choose_arm(features, arm32)
    if X86_SETS["avx512vnni"] <= features:
        amx = X86_SETS["amx"] <= features
        few_bits = Amx("tdpbsud", x86_amx.fields) if amx else None
        best = _x86(
            "amx" if amx else "avx512vnni",
            16,
            Vnni8(16, tiles=Amx("tdpbusd") if amx else None),
            # Few registers of weights and many vectors: a byte is read and masked for more of them.
            VnniFields(16, NIBBLE, loads=2, tile_vectors=6, turns=4, tiles=few_bits),
            VnniFields(16, CRUMB, loads=1, tile_vectors=6, turns=4, tiles=few_bits),
            VnniFields(16, SIGN, loads=1, tile_vectors=2, turns=2, tiles=few_bits),
            VnniCodebook(16, tiles=Amx("tdpbusd", x86_amx.looked_up) if amx else None),
            X86WordKernel(16, accumulates=True, tile_vectors=4),
            FloatKernel(16, 4, 6),
        )
        return replace(best, popcount=_counting(16, words=True)) if "avx512vpopcntdq" in features else best
    if X86_SETS["avxvnni"] <= features:
        return _x86(
            "avxvnni",
            8,
            Vnni8(8),
            VnniFields(8, NIBBLE, loads=4, tile_vectors=1),
            VnniFields(8, CRUMB, loads=2, tile_vectors=1),
            VnniFields(8, SIGN, loads=1, tile_vectors=1),
            VnniCodebook(8),
            X86WordKernel(8, accumulates=True),
            FloatKernel(8, 4),
        )
    if X86_SETS["avx2"] <= features:
        best = _x86(
            "avx2",
            8,
            Avx2Kernel8(),
            Avx2Fields(NIBBLE, tile_vectors=2),
            # Two sums in 16 bits for each unit and vector: with more of them registers run out.
            Avx2Fields(CRUMB, tile_vectors=2, units=2),
            Avx2Fields(SIGN, tile_vectors=1),
            Avx2Codebook(),
            X86WordKernel(8, accumulates=False),
            FloatKernel(8, 4),
        )
        return replace(best, encodings={**best.encodings, "int8": Avx2Pairs()}, parts="none")
    return Kernels(
        "portable",
        dict.fromkeys(NIBBLES, PortableKernel4(4, 4)),
        PortableKernel(4, 4),
        WideKernel(4, 4),
        FloatKernel(4, 4),
        lambda emitter: RowOps(emitter, 8),
        _counting(4),
    )


def _x86(
    name: str,
    lanes: int,
    int8: LinearKernel,
    nibbles: LinearKernel,
    crumbs: LinearKernel,
    signs: LinearKernel,
    codebook: LinearKernel,
    int16: LinearKernel,
    float32: LinearKernel,
) -> Kernels:
    own = _fields(nibbles, crumbs, signs) | {"codebook": codebook}
    return Kernels(name, own, int8, int16, float32, lambda emitter: X86Ops(emitter, lanes), _counting(lanes))


def _counting(lanes: int, units: int = 4, *, words: bool = False) -> Callable[[int], LinearKernel]:
    """Popcount kernels: the accumulators of all factors are held in registers, so that four factors leave fewer units.

    words: the CPU counts the bits of words; else those of bytes are added up.
    """

    def kernel(codes: int) -> LinearKernel:
        four = codes == 3 and not words
        tile = 1 if codes == 3 or not words else 2
        return PopcountKernel(lanes, codes, units=units // 2 if four else units, tile_vectors=tile, bytewise=not words)

    return kernel


def _fields(nibbles: LinearKernel, crumbs: LinearKernel, signs: LinearKernel) -> dict[str, LinearKernel]:
    """Kernels by encoding, of weights of 4, 2 and 1 bits."""
    return {"int4": nibbles, "int3": nibbles, "int2": crumbs, "ternary": crumbs, "binary": signs}


def _choose_arm(features: frozenset[str], arm32: bool) -> Kernels:
    if arm32:
        return Kernels(
            "armv7_neon",
            _fields(
                NeonFields(armv7_neon.ARITHMETIC, NIBBLE, units=4, groups=4, tile_vectors=1),
                NeonFields(armv7_neon.ARITHMETIC, CRUMB, units=4, groups=4, tile_vectors=1),
                LookUp(armv7_neon.INSTRUCTIONS, (-1, 1), columns=4, loads=1),
            )
            | {"codebook": NeonCodebook(armv7_neon.INSTRUCTIONS, armv7_neon.ARITHMETIC, 4, 4, 1)},
            Neon8(armv7_neon.ARITHMETIC, units=4, groups=4, tile_vectors=1),
            ArmWordKernel("llvm.arm.neon.vmulls.v4i32", units=8, tile_vectors=1),
            FloatKernel(4, 8, 1, group=2),
            lambda emitter: NeonOps(emitter, armv7_neon.INSTRUCTIONS),
            _counting(4),
        )
    if "dotprod" in features:
        matrix = "i8mm" in features
        return Kernels(
            "arm_i8mm" if matrix else "arm_dotprod",
            _fields(
                DotFields(NIBBLE, loads=8, short=2, tile_vectors=5),
                DotFields(CRUMB, loads=4, short=1, tile_vectors=5),
                LookUp(A64, (-1, 1), columns=4, loads=1),
            )
            | {"codebook": DotCodebook(A64)},
            Matrix8() if matrix else Dot8(),
            ArmWordKernel("llvm.aarch64.neon.smull.v4i32", units=8, tile_vectors=3),
            FloatKernel(4, 16, 1, group=2),
            lambda emitter: NeonOps(emitter, A64),
            _counting(4, units=8),
        )
    return Kernels(
        "arm_neon",
        _fields(
            NeonFields(arm_neon.A64, NIBBLE, units=8, groups=4, tile_vectors=1),
            LookUp(A64, (-2, -1, 0, 1), columns=2, loads=1),
            LookUp(A64, (-1, 1), columns=4, loads=1),
        )
        | {
            "ternary": LookUp(A64, (-1, 0, 1), columns=3, loads=2),
            "codebook": NeonCodebook(A64, arm_neon.A64, 4, 4, 3),
        },
        Neon8(arm_neon.A64, units=4, groups=4, tile_vectors=3),
        ArmWordKernel("llvm.aarch64.neon.smull.v4i32", units=8, tile_vectors=3),
        FloatKernel(4, 8, 3, group=4),
        lambda emitter: NeonOps(emitter, A64),
        _counting(4),
    )
