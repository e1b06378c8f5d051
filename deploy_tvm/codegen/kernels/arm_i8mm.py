"""ARM kernel with ``smmla`` (matrix products of two rows by two vectors, eight signed bytes long; from ARMv8.6 on).

One ``smmla`` does the work of two ``sdot`` where two vectors are at hand: the input-side product of a sequence.  For a
single vector half of it would be wasted, so there ``sdot`` reads the same weights: a register holds eight columns of
two rows.
"""

from __future__ import annotations

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, constant, load
from deploy_tvm.codegen.kernels.arm_dotprod import LANES, dot
from deploy_tvm.codegen.kernels.base import LinearKernel, Operand, accumulators, blocked, grouped

ROWS, COLUMNS = 2, 8
STEPS = 2  # registers of weights for 16 columns


def shuffled(a: Expr, b: Expr, lanes: list[int]) -> Expr:
    """Lanes of two registers, those of ``b`` counted on from ``a``'s."""
    return tirx.Shuffle([a, b], [tirx.const(lane, "int32") for lane in lanes])


def halves(a: Expr, b: Expr, which: int) -> Expr:
    """Eight bytes of ``a`` followed by the same eight of ``b``."""
    lanes = [which * COLUMNS + i for i in range(COLUMNS)]
    return shuffled(a, b, [*lanes, *(16 + lane for lane in lanes)])


def multiply(acc: Expr, weights: Expr, x: Expr) -> Expr:
    """``smmla``: to [row][vector] int32 the products of two rows with two vectors of eight int8."""
    return tirx.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.smmla.v4i32.v16i8", acc, weights, x)


class Matrix8(LinearKernel):
    """8-bit weights; a unit of four rows has two registers of accumulators."""

    lanes, units, group, operand_dtype, tile_vectors = LANES, 8, STEPS * COLUMNS, "int8", 2

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        blocks = self.blocks(weight.shape[0])
        rows = blocked(weight, blocks, self.block_rows).reshape(-1, weight.shape[1])
        groups = grouped(rows, STEPS * COLUMNS).reshape(blocks, self.block_rows // ROWS, ROWS, -1, STEPS, COLUMNS)
        order = np.ascontiguousarray(groups.transpose(0, 3, 4, 1, 2, 5))
        return {
            "weight": order.reshape(blocks, order.shape[1], -1),
            "bias": blocked(bias, blocks, self.block_rows),
        }

    def tile(
        self, emitter: Emitter, operand: Operand, vectors: list[Expr], packed: dict[str, tirx.Buffer], block: Expr
    ) -> list[list[Expr]]:
        pairs = self.block_rows // ROWS
        (acc,) = accumulators(emitter, [[constant(0, "int32", LANES)] * pairs])
        with emitter.loop(packed["weight"].shape[1], "k") as k:
            x = [emitter.bind(load(operand.buffer, 16, index, k * 16)) for index in vectors]
            for step in range(STEPS):
                both = emitter.bind(halves(x[0], x[-1], step))
                for pair in range(pairs):
                    weights = emitter.bind(load(packed["weight"], 16, block, k, (step * pairs + pair) * 16))
                    function = dot if len(vectors) == 1 else multiply
                    emitter.store(acc[pair], function(load(acc[pair], LANES, 0), weights, both), 0)
        result: list[list[Expr]] = [[] for _ in vectors]
        for u in range(self.units):
            # [row][vector], or [row][half of the columns] where there is one vector.
            upper, lower = (emitter.bind(load(acc[2 * u + n], LANES, 0)) for n in range(2))
            even, odd = (shuffled(upper, lower, [n, n + 2, n + 4, n + 6]) for n in range(2))
            bias = load(packed["bias"], LANES, block, u * LANES)
            if len(vectors) == 1:
                result[0].append(even + odd + bias)
            else:
                result[0].append(even + bias)
                result[1].append(odd + bias)
        return result
