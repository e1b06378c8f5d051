"""ARM kernels with ``sdot`` (dot products of four signed bytes, from ARMv8.2 on).

The four rows of a register of accumulators meet the four activations of one lane of x: ``sdot`` by element needs no
broadcast.

4-bit weights lie two to a byte as the number ``b = 16 w_hi + w_lo``, both signed, so |b| <= 119.  The byte as it is
gives ``p = 16 w_hi x + w_lo x``; shifted left by four it is ``16 w_lo`` exactly, which gives ``q = 16 w_lo x``.  So
``w_lo x = q >> 4`` and ``w_hi x = (p - w_lo x) >> 4``: three instructions for 32 weights, and no correction.
"""

from __future__ import annotations

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, constant, load
from deploy_tvm.codegen.kernels.base import LinearKernel, Operand, accumulators, blocked, grouped

LANES = 4
STEPS = 4  # groups of four activations in a register of x


def dot(acc: Expr, a: Expr, b: Expr) -> Expr:
    """``sdot``: to each of four int32 the products of four int8."""
    return tirx.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.sdot.v4i32.v16i8", acc, a, b)


def spread(x: Expr, step: int) -> Expr:
    """Four neighbouring activations in every lane; the compiler makes it part of ``sdot``."""
    fours = tirx.reinterpret("int32x4", x)
    return tirx.reinterpret("int8x16", tirx.Shuffle([fours], [tirx.const(step, "int32")] * LANES))


def interleaved(weight: np.ndarray, blocks: int, units: int) -> np.ndarray:
    """int8 [rows, columns] -> [blocks, columns / 16, 4 steps * units * 4 rows * 4 columns]."""
    rows = blocked(weight, blocks, units * LANES).reshape(-1, weight.shape[1])
    groups = grouped(rows, 4 * STEPS).reshape(blocks, units, LANES, -1, STEPS, 4)
    order = np.ascontiguousarray(groups.transpose(0, 3, 4, 1, 2, 5))
    return order.reshape(blocks, order.shape[1], -1)


class Dot8(LinearKernel):
    """8-bit weights."""

    lanes, units, group, operand_dtype, tile_vectors = LANES, 8, 4 * STEPS, "int8", 3

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        blocks = self.blocks(weight.shape[0])
        return {
            "weight": interleaved(weight, blocks, self.units),
            "bias": blocked(bias, blocks, self.block_rows),
        }

    def tile(
        self, emitter: Emitter, operand: Operand, vectors: list[Expr], packed: dict[str, tirx.Buffer], block: Expr
    ) -> list[list[Expr]]:
        units = self.units
        bias = [load(packed["bias"], LANES, block, u * LANES) for u in range(units)]
        acc = accumulators(emitter, [bias for _ in vectors])
        with emitter.loop(packed["weight"].shape[1], "k") as k:
            x = [emitter.bind(load(operand.buffer, 16, index, k * 16)) for index in vectors]
            for step in range(STEPS):
                for u in range(units):
                    weights = emitter.bind(load(packed["weight"], 16, block, k, (step * units + u) * 16))
                    for v in range(len(vectors)):
                        emitter.store(acc[v][u], dot(load(acc[v][u], LANES, 0), weights, spread(x[v], step)), 0)
        return [[load(buffer, LANES, 0) for buffer in row] for row in acc]


class Dot4(LinearKernel):
    """Weights of 4 bits and less; with -8 in both halves ``b`` would leave its byte."""

    weights = (-7, 7)
    lanes, units, group, operand_dtype, tile_vectors = LANES, 8, 4 * STEPS, "int8", 3

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        blocks, pairs = self.blocks(weight.shape[0]), self.units // 2
        rows = blocked(weight, blocks, self.block_rows).reshape(blocks, pairs, 2, LANES, -1)
        both = (16 * rows[:, :, 1] + rows[:, :, 0]).reshape(blocks * pairs * LANES, -1)
        return {
            "weight": interleaved(both, blocks, pairs),
            "bias": blocked(bias, blocks, self.block_rows),
        }

    def tile(
        self, emitter: Emitter, operand: Operand, vectors: list[Expr], packed: dict[str, tirx.Buffer], block: Expr
    ) -> list[list[Expr]]:
        pairs = self.units // 2
        zero = [constant(0, "int32", LANES)] * pairs
        whole = accumulators(emitter, [zero for _ in vectors])
        lower = accumulators(emitter, [zero for _ in vectors])
        four = constant(4, "int8", 16)
        with emitter.loop(packed["weight"].shape[1], "k") as k:
            x = [emitter.bind(load(operand.buffer, 16, index, k * 16)) for index in vectors]
            for step in range(STEPS):
                for u in range(pairs):
                    both = emitter.bind(load(packed["weight"], 16, block, k, (step * pairs + u) * 16))
                    low = emitter.bind(both << four)
                    for v in range(len(vectors)):
                        four_x = emitter.bind(spread(x[v], step))
                        emitter.store(whole[v][u], dot(load(whole[v][u], LANES, 0), both, four_x), 0)
                        emitter.store(lower[v][u], dot(load(lower[v][u], LANES, 0), low, four_x), 0)
        shift = constant(4, "int32", LANES)
        result = []
        for v in range(len(vectors)):
            row = []
            for u in range(pairs):
                low_acc = emitter.bind(load(lower[v][u], LANES, 0) >> shift)
                row += [low_acc, (load(whole[v][u], LANES, 0) - low_acc) >> shift]
            result.append([a + load(packed["bias"], LANES, block, u * LANES) for u, a in enumerate(row)])
        return result
