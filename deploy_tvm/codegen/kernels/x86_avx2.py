"""x86 kernels for CPUs with AVX2 but without ``vpdpbusd``.

``vpmaddubsw`` adds pairs of unsigned by signed products with saturation to 16 bits, so 8-bit weights are widened to
16 bits first (``vpmovsxbw``, ``vpmaddwd``).  Nibbles ``w + 8`` of 4-bit weights cannot saturate it: 2 * 15 * 128 is
3840.
"""

from __future__ import annotations

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, cast, constant, load
from deploy_tvm.codegen.kernels.base import LinearKernel, Operand, accumulators, blocked, grouped
from deploy_tvm.codegen.kernels.x86_vnni import Vnni4
from deploy_tvm.codegen.rows import Row, combine

LANES = 8


def add_pairs(a: Expr, b: Expr) -> Expr:
    """``vpmaddwd``: sums of two neighbouring products of 16-bit integers."""
    return tirx.call_llvm_pure_intrin("int32x8", "llvm.x86.avx2.pmadd.wd", a, b)


class Avx2Kernel8(LinearKernel):
    """8-bit weights."""

    lanes, units, group, operand_dtype, tile_vectors = LANES, 4, 2, "int16", 2

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        blocks = self.blocks(weight.shape[0])
        pairs = grouped(blocked(weight, blocks, self.block_rows).reshape(-1, weight.shape[1]), 2)
        order = pairs.reshape(blocks, self.block_rows, -1, 2).transpose(0, 2, 1, 3)
        return {
            "weight": np.ascontiguousarray(order).reshape(blocks, -1, self.block_rows * 2),
            "bias": blocked(bias, blocks, self.block_rows),
        }

    def operand_element(self, x: Row) -> Row:
        return combine("int16", lambda v: cast(v, "int16"), x)

    def tile(
        self, emitter: Emitter, operand: Operand, vectors: list[Expr], packed: dict[str, tirx.Buffer], block: Expr
    ) -> list[list[Expr]]:
        bias = [load(packed["bias"], LANES, block, u * LANES) for u in range(self.units)]
        acc = accumulators(emitter, [bias for _ in vectors])
        with emitter.loop(packed["weight"].shape[1], "k") as k:
            weights = [
                emitter.bind(cast(load(packed["weight"], 2 * LANES, block, k, u * 2 * LANES), "int16"))
                for u in range(self.units)
            ]
            for v, index in enumerate(vectors):
                pair = tirx.reinterpret("int32", load(operand.buffer, 2, index, k * 2))
                x = emitter.bind(tirx.reinterpret("int16x16", tirx.Broadcast(pair, LANES)))
                for u in range(self.units):
                    emitter.store(acc[v][u], load(acc[v][u], LANES, 0) + add_pairs(weights[u], x), 0)
        return [[load(buffer, LANES, 0) for buffer in row] for row in acc]


class Avx2Kernel4(Vnni4):
    """4-bit weights, packed as for ``vpdpbusd`` but with both nibbles masked."""

    def __init__(self) -> None:
        super().__init__(LANES, units=4)
        self.tile_vectors = 2

    def dot(self, acc: Expr, unsigned: Expr, signed: Expr) -> Expr:
        """``vpdpbusd`` for unsigned bytes below 16."""
        pairs = tirx.call_llvm_pure_intrin("int16x16", "llvm.x86.avx2.pmadd.ub.sw", unsigned, signed)
        return acc + add_pairs(pairs, constant(1, "int16", 2 * LANES))

    def upper(self, whole: Expr) -> Expr:
        """The upper nibbles alone."""
        return (whole >> constant(4, "uint8", 4 * LANES)) & constant(15, "uint8", 4 * LANES)

    def upper_sum(self, whole: Expr, low: Expr) -> Expr:
        return whole
