"""x86 kernel for operands of 16 bits: ``vpmaddwd``, or ``vpdpwssd``, which adds its sums too.

Both add pairs of products of 16-bit integers in 32 bits.  Only (-32768)**2 twice would leave them, and does not matter
to ``vpdpwssd``, whose sums wrap around: ``check`` proves that the whole sum fits int32, so that what wraps comes back.
``vpmaddwd`` gives the same bits for that pair (0x80000000).
"""

from __future__ import annotations

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, cast, load, vector
from deploy_tvm.codegen.kernels.base import Operand, accumulators, blocked, grouped
from deploy_tvm.codegen.kernels.words import WordKernel


class X86WordKernel(WordKernel):
    """By pairs of columns."""

    group = 2
    separable = True

    def __init__(self, lanes: int, *, accumulates: bool, units: int = 4, tile_vectors: int = 2) -> None:
        """accumulates: the CPU has ``vpdpwssd``."""
        self.lanes, self.units, self.tile_vectors, self.accumulates = lanes, units, tile_vectors, accumulates

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        blocks = self.blocks(weight.shape[0])
        pairs = grouped(blocked(weight, blocks, self.block_rows).reshape(-1, weight.shape[1]), 2)
        order = pairs.reshape(blocks, self.block_rows, -1, 2).transpose(0, 2, 1, 3)
        return {
            "weight": np.ascontiguousarray(order).reshape(blocks, -1, self.block_rows * 2),
            "bias": blocked(bias, blocks, self.block_rows),
        }

    def tile(
        self, emitter: Emitter, operand: Operand, vectors: list[Expr], packed: dict[str, tirx.Buffer], block: Expr
    ) -> list[list[Expr]]:
        lanes, width = self.lanes, 2 * self.lanes
        bias = [load(packed["bias"], lanes, block, u * lanes) for u in range(self.units)]
        acc = accumulators(emitter, [bias for _ in vectors])
        with emitter.loop(packed["weight"].shape[1], "k") as k:
            weights = [
                emitter.bind(cast(load(packed["weight"], width, block, k, u * width), "int16"))
                for u in range(self.units)
            ]
            for v, index in enumerate(vectors):
                pair = tirx.reinterpret("int32", load(operand.buffer, 2, index, k * 2))
                x = emitter.bind(tirx.reinterpret(vector("int16", width), tirx.Broadcast(pair, lanes)))
                for u in range(self.units):
                    emitter.store(acc[v][u], self._add(load(acc[v][u], lanes, 0), weights[u], x), 0)
        return [[load(buffer, lanes, 0) for buffer in row] for row in acc]

    def _add(self, acc: Expr, a: Expr, b: Expr) -> Expr:
        kind = vector("int32", self.lanes)
        if self.accumulates:
            return tirx.call_llvm_pure_intrin(kind, f"llvm.x86.avx512.vpdpwssd.{32 * self.lanes}", acc, a, b)
        name = "llvm.x86.avx512.pmaddw.d.512" if self.lanes == 16 else "llvm.x86.avx2.pmadd.wd"
        return acc + tirx.call_llvm_pure_intrin(kind, name, a, b)
