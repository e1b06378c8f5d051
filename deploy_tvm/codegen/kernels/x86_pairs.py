"""AVX2 kernel for 8-bit weights few of whose neighbours are large together: one multiplication, no transfer of signs.

``vpmaddubsw`` multiplies ``x + 128``, an unsigned byte, by a signed one and adds two neighbouring products in 16 bits
with saturation.  The sum stays within ``255 * 128 = 32640 < 2**15`` where the positive weights of a pair of columns
add up to 128 at most, and the negative ones too.  Four columns of a block that hold a pair beyond this are halved,
``w = (w >> 1) + (w - (w >> 1))``: both halves of every byte are from -64 to 64, so that their pairs are within the
bound, and the second halves follow behind the block's products.  ``-128 sum(w_row)`` is folded into the bias.
"""

from __future__ import annotations

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, as_index, cast, constant, load
from deploy_tvm.codegen.kernels.base import Operand, accumulators, blocked, grouped
from deploy_tvm.codegen.kernels.x86_avx2 import BYTES, LANES, add_pairs, multiply
from deploy_tvm.codegen.kernels.x86_vnni import Vnni8, spread

MOST = 128
# Above this share of halved columns the transfer of signs, whose weights are all read once, is as fast.
WORTH = 0.3
# Groups of columns in one round of the loop: three instructions a register leave none for counting.
UNROLLED = 4


class Avx2Pairs(Vnni8):
    """8-bit weights, of -128 too."""

    roles = ("weight", "bias", "rest", "columns", "ends")

    def __init__(self) -> None:
        super().__init__(LANES)

    def proved_for(self, weight: np.ndarray) -> bool:
        # Exact for every byte, but not worth it for each matrix.
        return super().proved_for(weight) and float(self.halved(self._in_order(weight)).mean()) <= WORTH

    def _in_order(self, weight: np.ndarray) -> np.ndarray:
        """The weights as they are read: int8 [blocks, groups of columns, rows of a block, 4]."""
        blocks = self.blocks(weight.shape[0])
        groups = grouped(blocked(weight, blocks, self.block_rows).reshape(-1, weight.shape[1]), 4)
        return np.ascontiguousarray(groups.reshape(blocks, self.block_rows, -1, 4).transpose(0, 2, 1, 3))

    @staticmethod
    def halved(order: np.ndarray) -> np.ndarray:
        """Which groups of columns hold a pair beyond the bound: bool [blocks, groups]."""
        pairs = order.astype(np.int16).reshape(*order.shape[:3], 2, 2)
        sums = [np.clip(sign * pairs, 0, None).sum(-1) for sign in (1, -1)]
        return (np.maximum(*sums) > MOST).any((2, 3))

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        packed, order = super().pack(weight, bias), self._in_order(weight)
        halved = self.halved(order)
        blocks, columns = np.nonzero(halved)
        rest = order[halved] - (order[halved] >> 1)
        order[halved] >>= 1
        ends = np.append(0, np.cumsum(halved.sum(1)))
        # One more row: no array is empty.
        return packed | {
            "weight": order.reshape(packed["weight"].shape),
            "rest": np.pad(rest.reshape(blocks.size, -1), ((0, 1), (0, 0)))
            if blocks.size
            else np.zeros((1, self.block_rows * 4), np.int8),
            "columns": np.append(columns, 0).astype(np.int32),
            "ends": ends.astype(np.int32),
        }

    def tile(
        self, emitter: Emitter, operand: Operand, vectors: list[Expr], packed: dict[str, tirx.Buffer], block: Expr
    ) -> list[list[Expr]]:
        bias = [load(packed["bias"], LANES, block, u * LANES) for u in range(self.units)]
        acc = accumulators(emitter, [bias for _ in vectors])
        one = constant(1, "int16", 2 * LANES)

        def add(weights: list[Expr], k: Expr) -> None:
            for v, index in enumerate(vectors):
                x = emitter.bind(spread(operand.buffer, LANES, index, k))
                for u, register in enumerate(weights):
                    pairs = add_pairs(multiply(x, register), one)
                    emitter.store(acc[v][u], load(acc[v][u], LANES, 0) + pairs, 0)

        whole, rest = divmod(int(packed["weight"].shape[1]), UNROLLED)

        def some(first: Expr, count: int) -> None:
            for k in (first + n for n in range(count)):
                add([load(packed["weight"], BYTES, block, k, u * BYTES) for u in range(self.units)], k)

        if whole:
            with emitter.loop(whole, "k") as j:
                some(emitter.bind(j * UNROLLED, "k"), UNROLLED)
        some(as_index(whole * UNROLLED), rest)
        if int(packed["rest"].shape[0]) > 1:
            first, end = (cast(load(packed["ends"], 1, block + n), "int64") for n in (0, 1))
            first = emitter.bind(first, "first")
            with emitter.loop(emitter.bind(end - first, "count"), "n") as n:
                row = emitter.bind(first + n, "row")
                k = emitter.bind(cast(load(packed["columns"], 1, row), "int64"), "k")
                add([emitter.bind(load(packed["rest"], BYTES, row, u * BYTES)) for u in range(self.units)], k)
        return [[load(buffer, LANES, 0) for buffer in row] for row in acc]
