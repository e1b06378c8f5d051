"""The instructions of 32-bit ARM (ARMv7 NEON) for the kernels of ``arm_neon`` and the tables of ``arm_tables``."""

from __future__ import annotations

from tvm import tirx

from deploy_tvm.codegen.emitter import Expr
from deploy_tvm.codegen.kernels.arm_neon import Arithmetic
from deploy_tvm.codegen.kernels.arm_tables import Instructions, joined, pieces


def add_pairs(acc: Expr, products: Expr) -> Expr:
    """``vpadal``."""
    return tirx.call_llvm_pure_intrin("int32x4", "llvm.arm.neon.vpadals.v4i32.v8i16", acc, products)


def look_up(table: list[Expr], index: Expr) -> Expr:
    """``vtbl``: bytes of a table of 32, eight at a time."""
    halves = [part for register in table for part in pieces(register, 8)]
    name = f"llvm.arm.neon.vtbl{len(halves)}"
    return joined([tirx.call_llvm_pure_intrin("int8x8", name, *halves, part) for part in pieces(index, 8)])


ARITHMETIC = Arithmetic("llvm.arm.neon.vmulls.v8i16", add_pairs)
# Tables of more than four registers of eight bytes have no instruction.
INSTRUCTIONS = Instructions(
    look_up,
    16,
    "llvm.arm.neon.vqdmulh.v4i32",
    "llvm.arm.neon.vrshifts.v4i32",
    "llvm.arm.neon.vqmovns.v4i16",
)
