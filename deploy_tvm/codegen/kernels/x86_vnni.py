"""x86 kernels with ``vpdpbusd``: AVX512-VNNI (16 lanes) and AVX-VNNI (8 lanes).

``vpdpbusd`` multiplies unsigned by signed bytes, four to a 32-bit lane, without saturation.

* 8-bit weights are the signed operand, the activations become ``x + 128``; ``-128 sum(w_row)`` is folded into the bias
  when the weights are packed.
* 4-bit weights are the unsigned operand as nibbles ``w + 8``, the activations stay signed and ``-8 sum(x)`` is added to
  every row.  A byte holds one row's nibble v_lo and another row's v_hi.  Multiplying the whole byte gives
  ``p = v_lo x + 16 v_hi x``, the masked byte gives ``v_lo x``, so ``v_hi x = (p - v_lo x) >> 4`` exactly: three
  instructions for 128 weights.
"""

from __future__ import annotations

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, cast, constant, lanes_of, load, vector
from deploy_tvm.codegen.kernels.base import LinearKernel, Operand, accumulators, blocked, grouped
from deploy_tvm.codegen.rows import Row, RowOps, combine, number


class VnniKernel(LinearKernel):
    """What both widths of weights share: the instruction and the broadcast of four activations."""

    group = 4

    def __init__(self, lanes: int, units: int = 4) -> None:
        self.lanes, self.units = lanes, units
        self.tile_vectors = 6 if lanes == 16 else 2

    def dot(self, acc: Expr, unsigned: Expr, signed: Expr) -> Expr:
        name = f"llvm.x86.avx512.vpdpbusd.{32 * self.lanes}"
        return tirx.call_llvm_pure_intrin(vector("int32", self.lanes), name, acc, unsigned, signed)

    def spread(self, operand: Operand, index: Expr, k: Expr) -> Expr:
        """Four neighbouring activations in every lane."""
        four = tirx.reinterpret("int32", load(operand.buffer, 4, index, k * 4))
        return tirx.reinterpret(vector(self.operand_dtype, 4 * self.lanes), tirx.Broadcast(four, self.lanes))


class Vnni8(VnniKernel):
    """8-bit weights."""

    operand_dtype = "uint8"

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        blocks = self.blocks(weight.shape[0])
        groups = grouped(blocked(weight, blocks, self.block_rows).reshape(-1, weight.shape[1]), 4)
        order = groups.reshape(blocks, self.block_rows, -1, 4).transpose(0, 2, 1, 3)
        shifted = bias.astype(np.int64) - 128 * weight.sum(1, dtype=np.int64)
        # Products are sums modulo 2**32, so a folded bias that leaves int32 would still come out right.
        shifted = (shifted & 0xFFFFFFFF).astype(np.uint32).view(np.int32)
        return {
            "weight": np.ascontiguousarray(order).reshape(blocks, -1, self.block_rows * 4),
            "bias": blocked(shifted, blocks, self.block_rows),
        }

    def operand_element(self, x: Row) -> Row:
        moved = combine("int8", lambda v: v ^ constant(-128, "int8", lanes_of(v)), x)
        return combine("uint8", lambda v: tirx.reinterpret(vector("uint8", lanes_of(v)), v), moved)

    def tile(
        self, emitter: Emitter, operand: Operand, vectors: list[Expr], packed: dict[str, tirx.Buffer], block: Expr
    ) -> list[list[Expr]]:
        lanes, units = self.lanes, self.units
        bias = [load(packed["bias"], lanes, block, u * lanes) for u in range(units)]
        acc = accumulators(emitter, [bias for _ in vectors])
        with emitter.loop(packed["weight"].shape[1], "k") as k:
            weights = [emitter.bind(load(packed["weight"], 4 * lanes, block, k, u * 4 * lanes)) for u in range(units)]
            for v, index in enumerate(vectors):
                x = emitter.bind(self.spread(operand, index, k))
                for u in range(units):
                    emitter.store(acc[v][u], self.dot(load(acc[v][u], lanes, 0), x, weights[u]), 0)
        return [[load(buffer, lanes, 0) for buffer in row] for row in acc]


class Vnni4(VnniKernel):
    """Weights of 4 bits and less."""

    operand_dtype, weights = "int8", (-8, 7)

    def __init__(self, lanes: int, units: int = 8) -> None:
        super().__init__(lanes, units)
        self.tile_vectors = 3 if lanes == 16 else 1

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        blocks = self.blocks(weight.shape[0])
        # Padding is the nibble of weight 0, so that the correction by the sum of x is the same for every row.
        nibbles = (weight + 8).astype(np.uint8)
        nibbles = grouped(blocked(nibbles, blocks, self.block_rows).reshape(-1, weight.shape[1]), 4)
        order = nibbles.reshape(blocks, self.units // 2, 2, self.lanes, -1, 4).transpose(0, 4, 1, 2, 3, 5)
        low, high = order[:, :, :, 0], order[:, :, :, 1]
        return {
            "weight": np.ascontiguousarray(low | high << 4).reshape(blocks, order.shape[1], -1),
            "bias": blocked(bias, blocks, self.block_rows),
        }

    def corrects(self) -> bool:
        return True

    def correction(self, ops: RowOps, x: Row) -> Row:
        return ops.row_sum(ops.to(x, "int32") * number(-8, "int32"))

    def upper(self, whole: Expr) -> Expr:
        """What is multiplied for the upper nibbles: the whole byte."""
        return whole

    def upper_sum(self, whole: Expr, low: Expr) -> Expr:
        """The upper nibbles' products, from the whole bytes' and the lower nibbles'."""
        return (whole - low) >> constant(4, "int32", self.lanes)

    def tile(
        self, emitter: Emitter, operand: Operand, vectors: list[Expr], packed: dict[str, tirx.Buffer], block: Expr
    ) -> list[list[Expr]]:
        lanes, pairs = self.lanes, self.units // 2
        zero = [constant(0, "int32", lanes)] * pairs
        whole = accumulators(emitter, [zero for _ in vectors])
        lower = accumulators(emitter, [zero for _ in vectors])
        mask = constant(15, "uint8", 4 * lanes)
        with emitter.loop(packed["weight"].shape[1], "k") as k:
            both = [emitter.bind(load(packed["weight"], 4 * lanes, block, k, u * 4 * lanes)) for u in range(pairs)]
            low = [emitter.bind(b & mask) for b in both]
            upper = [emitter.bind(self.upper(b)) for b in both]
            for v, index in enumerate(vectors):
                x = emitter.bind(self.spread(operand, index, k))
                for u in range(pairs):
                    emitter.store(whole[v][u], self.dot(load(whole[v][u], lanes, 0), upper[u], x), 0)
                    emitter.store(lower[v][u], self.dot(load(lower[v][u], lanes, 0), low[u], x), 0)
        result = []
        for v, index in enumerate(vectors):
            correction = cast(load(operand.correction, 1, index), "int32", lanes)
            row = []
            for u in range(pairs):
                low_acc = emitter.bind(load(lower[v][u], lanes, 0))
                high_acc = self.upper_sum(load(whole[v][u], lanes, 0), low_acc)
                row += [low_acc + correction, high_acc + correction]
            result.append(
                [a + load(packed["bias"], lanes, block, u * lanes) for u, a in enumerate(emitter.bind(r) for r in row)]
            )
        return result
