"""ARM kernel for operands of 16 bits: ``smlal`` by element (``vmlal``) adds four products of 16 bits in 32 bits.

No pair of products is added before it has 32 bits, so any weights and activations do whose sums fit int32, as ``check``
proves.
"""

from __future__ import annotations

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, cast, load
from deploy_tvm.codegen.kernels.arm_tables import pieces
from deploy_tvm.codegen.kernels.base import Operand, accumulators, blocked, grouped
from deploy_tvm.codegen.kernels.words import WordKernel

LANES, COLUMNS, PAIR = 4, 4, 8  # columns: a half register of activations; PAIR: rows of a register of weights


class ArmWordKernel(WordKernel):
    """By half registers of activations."""

    lanes, group = LANES, COLUMNS

    def __init__(self, multiply: str, units: int, tile_vectors: int) -> None:
        """multiply: four int16 by four int16, int32 products; units: an even number of registers of four rows."""
        self.multiply, self.units, self.tile_vectors = multiply, units, tile_vectors

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        blocks = self.blocks(weight.shape[0])
        rows = blocked(weight, blocks, self.block_rows).reshape(-1, weight.shape[1])
        columns = grouped(rows, COLUMNS).reshape(blocks, self.block_rows, -1, COLUMNS)
        order = np.ascontiguousarray(columns.transpose(0, 2, 3, 1))
        return {"weight": order, "bias": blocked(bias, blocks, self.block_rows)}

    def tile(
        self, emitter: Emitter, operand: Operand, vectors: list[Expr], packed: dict[str, tirx.Buffer], block: Expr
    ) -> list[list[Expr]]:
        bias = [load(packed["bias"], LANES, block, u * LANES) for u in range(self.units)]
        acc = accumulators(emitter, [bias for _ in vectors])
        with emitter.loop(packed["weight"].shape[1], "k") as k:
            x = [emitter.bind(load(operand.buffer, COLUMNS, index, k * COLUMNS)) for index in vectors]
            for column in range(COLUMNS):
                for pair in range(self.units // 2):
                    weights = emitter.bind(cast(load(packed["weight"], PAIR, block, k, column, pair * PAIR), "int16"))
                    for half, four in enumerate(pieces(weights, LANES)):
                        for v in range(len(vectors)):
                            buffer = acc[v][2 * pair + half]
                            one = tirx.Shuffle([x[v]], [tirx.const(column, "int32")] * LANES)
                            product = tirx.call_llvm_pure_intrin("int32x4", self.multiply, four, one)
                            emitter.store(buffer, load(buffer, LANES, 0) + product, 0)
        return [[load(buffer, LANES, 0) for buffer in row] for row in acc]
