"""Binary weights times a vector of few magnitudes, by counting bits: what ``multibit`` gives (Xu et al. 2018, 5).

A vector of k codes has at most ``2**(k-1)`` magnitudes, ``m_0 >= m_1 >= ..``.  Its elements are sums of as many signs
times factors.  With the signs s_0 of an element, s_1 (of two: + for m_0; of four: + for m_0 and m_1), s_2 (+ for m_0
and m_2) and their products,

    one:   x = m_0 s_0
    two:   2 x = (m_0 + m_1) s_0 + (m_0 - m_1) s_0 s_1
    four:  4 x = (m_0 + m_1 + m_2 + m_3) s_0 + (m_0 + m_1 - m_2 - m_3) s_0 s_1
                 + (m_0 - m_1 + m_2 - m_3) s_0 s_2 + (m_0 - m_1 - m_2 + m_3) s_0 s_1 s_2

for any integers: nothing is assumed of how the codes were found.  The product of a row of signs with a vector of n
signs is ``n - 2 popcount(w ^ s)``, so that ``sum w x`` is exact after one shift.
"""

from __future__ import annotations

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, as_index, cast, constant, lanes_of, load, vector
from deploy_tvm.codegen.kernels.base import LinearKernel, Operand, accumulators, blocked
from deploy_tvm.codegen.row_ops import RowOps
from deploy_tvm.codegen.rows import SLACK, Block, Row, buffer_row, combine

WORD = 32
# Words whose bits fit a byte together: 8 bits of each are counted there.
BYTE_WORDS = 31
# By the number k of codes, for each factor of ``2**(k-1) x`` the signs of the magnitudes in it, the largest first.
SIGNS = {
    1: ((1,),),
    2: ((1, 1), (1, -1)),
    3: ((1, 1, 1, 1), (1, 1, -1, -1), (1, -1, 1, -1), (1, -1, -1, 1)),
}
CODES = tuple(SIGNS)


class PopcountKernel(LinearKernel):
    """For ``codes`` codes; bits are counted in words, or ``bytewise`` where the CPU counts bytes."""

    form, operand_dtype, weights, group = "popcount|", "int16", (-1, 1), WORD

    def __init__(self, lanes: int, codes: int, *, units: int, tile_vectors: int, bytewise: bool) -> None:
        self.lanes, self.codes, self.units, self.bytewise = lanes, codes, units, bytewise
        self.tile_vectors, self.factors = tile_vectors, len(SIGNS[codes])
        self.passes = self.factors

    def proved_for(self, weight: np.ndarray) -> bool:
        return super().proved_for(weight) and bool(np.all(weight))

    def padded(self, length: int) -> int:
        return -(-length // WORD) * WORD + SLACK

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        """Bit t of word k is the sign of element ``t words + k``: words are made side by side."""
        blocks, words = self.blocks(weight.shape[0]), _words(weight.shape[1])
        negative = np.zeros((blocks * self.block_rows, WORD * words), np.uint32)
        negative[: weight.shape[0], : weight.shape[1]] = weight < 0
        places = np.arange(WORD, dtype=np.uint32)[:, None]
        packed = np.bitwise_or.reduce(negative.reshape(-1, WORD, words) << places, axis=1)
        order = packed.reshape(blocks, self.block_rows, words).transpose(0, 2, 1)
        return {
            "weight": np.ascontiguousarray(order).view(np.int32),
            "bias": blocked(bias, blocks, self.block_rows),
        }

    def allocate(self, emitter: Emitter, vectors: int, length: int) -> Operand:
        words = -(-_words(length) // self.lanes) * self.lanes
        return Operand(
            emitter.alloc((vectors, self.factors, words), "int32", "bits"),
            emitter.alloc((vectors,), "int32", "correction"),
            emitter.alloc((vectors, self.factors), "int32", "factor"),
        )

    def fill(self, emitter: Emitter, ops: RowOps, operand: Operand, vector: Expr, x: Row) -> None:
        words, length = _words(x.length), x.length
        plain = emitter.alloc((1, self.padded(length)), "int16", "plain")
        super().fill(emitter, ops, Operand(plain, None), 0, x)
        magnitudes = self._magnitudes(emitter, ops, buffer_row(plain, length, "int16", as_index(0)))
        total: Expr = constant(0, "int32")
        for j, signs in enumerate(SIGNS[self.codes]):
            factor = constant(0, "int32")
            for magnitude, sign in zip(magnitudes, signs, strict=True):
                factor = factor + magnitude if sign > 0 else factor - magnitude
            factor = emitter.bind(factor)
            emitter.store(operand.plain, factor * constant(2, "int32"), vector, j)
            total = total + factor
        emitter.store(operand.correction, total * constant(length, "int32"), vector)
        # What fills up the last word shall add no bit: the largest magnitude has the sign + in every code.
        for k in range(length, WORD * words):
            emitter.store(plain, cast(magnitudes[0], "int16"), 0, k)
        for start in range(0, words, self.lanes):
            bits = [emitter.alloc((self.lanes,), "int32", "word") for _ in range(self.factors)]
            for buffer in bits:
                emitter.store(buffer, constant(0, "int32", self.lanes), 0)
            with emitter.loop(as_index(WORD), "t") as t:
                element = emitter.bind(cast(load(plain, self.lanes, 0, t * words + start), "int32"))
                place = emitter.bind(cast(constant(1, "int32") << cast(t, "int32"), "int32", self.lanes))
                for buffer, found in zip(bits, self._signs(emitter, element, magnitudes, place), strict=True):
                    emitter.store(buffer, load(buffer, self.lanes, 0) | found, 0)
            for j, buffer in enumerate(bits):
                emitter.store(operand.buffer, load(buffer, self.lanes, 0), vector, j, start)

    def _magnitudes(self, emitter: Emitter, ops: RowOps, x: Row) -> list[Expr]:
        """The magnitudes of a vector in memory, the largest first; where it has fewer, the smallest several times."""
        size = combine("int32", lambda v: _abs(cast(v, "int32")), x)

        def largest(row: Row) -> Expr:
            return emitter.bind(ops.row_max(row).function(Block(emitter, 0, 1), 0))

        first = largest(size)
        if self.codes == 1:
            return [first]
        negated = combine("int32", lambda v: constant(0, "int32", lanes_of(v)) - v, size)
        last = emitter.bind(constant(0, "int32") - largest(negated))
        if self.codes == 2:
            return [first, last]
        found = [first]
        for _ in range(2):
            below = found[-1]

            def smaller(v: Expr, below: Expr = below) -> Expr:
                lanes = lanes_of(v)
                return tirx.Select(v < cast(below, "int32", lanes), v, cast(last, "int32", lanes))

            found.append(largest(combine("int32", smaller, size)))
        return [*found, last]

    def _signs(self, emitter: Emitter, x: Expr, magnitudes: list[Expr], place: Expr) -> list[Expr]:
        """For each factor, ``place`` where its sign is negative and 0 elsewhere."""
        zero, wide = constant(0, "int32", self.lanes), [cast(m, "int32", self.lanes) for m in magnitudes]
        negative = emitter.bind(tirx.Select(x < zero, place, zero))
        if self.codes == 1:
            return [negative]
        size = emitter.bind(_abs(x))
        if self.codes == 2:
            return [negative, negative ^ tirx.Select(size < wide[0], place, zero)]
        low = emitter.bind(tirx.Select(size < wide[1], place, zero))
        odd = tirx.Select(
            size < wide[1], tirx.Select(size < wide[2], place, zero), tirx.Select(size < wide[0], place, zero)
        )
        odd = emitter.bind(odd)
        return [negative, negative ^ low, negative ^ odd, negative ^ low ^ odd]

    def tile(
        self, emitter: Emitter, operand: Operand, vectors: list[Expr], packed: dict[str, tirx.Buffer], block: Expr
    ) -> list[list[Expr]]:
        lanes, words = self.lanes, int(packed["weight"].shape[1])
        zero = [constant(0, "int32", lanes)] * self.units
        counts = [accumulators(emitter, [zero] * self.factors) for _ in vectors]
        for first in range(0, words, BYTE_WORDS if self.bytewise else words):
            stop = min(words, first + BYTE_WORDS) if self.bytewise else words
            sums = [accumulators(emitter, [zero] * self.factors) for _ in vectors] if self.bytewise else counts
            with emitter.loop(as_index(stop - first), "k") as k:
                weights = [
                    emitter.bind(load(packed["weight"], lanes, block, k + first, u * lanes)) for u in range(self.units)
                ]
                for v, index in enumerate(vectors):
                    for j in range(self.factors):
                        word = emitter.bind(cast(load(operand.buffer, 1, index, j, k + first), "int32", lanes))
                        for u in range(self.units):
                            self._count(emitter, sums[v][j][u], weights[u] ^ word)
            if self.bytewise:
                for v in range(len(vectors)):
                    for j in range(self.factors):
                        for u in range(self.units):
                            whole, part = counts[v][j][u], load(sums[v][j][u], lanes, 0)
                            emitter.store(whole, load(whole, lanes, 0) + _of_bytes(emitter, part), 0)
        return [self._finished(emitter, operand, index, packed, block, counts[v]) for v, index in enumerate(vectors)]

    def _count(self, emitter: Emitter, sums: tirx.Buffer, differing: Expr) -> None:
        """Add the bits that are set: of each word, or of each of its bytes."""
        lanes = self.lanes
        if not self.bytewise:
            counted = _popcount(differing, "i32", lanes)
            emitter.store(sums, load(sums, lanes, 0) + counted, 0)
            return
        counted = _popcount(tirx.reinterpret(vector("int8", 4 * lanes), differing), "i8", 4 * lanes)
        total = tirx.reinterpret(vector("int8", 4 * lanes), load(sums, lanes, 0)) + counted
        emitter.store(sums, tirx.reinterpret(vector("int32", lanes), total), 0)

    def _finished(
        self,
        emitter: Emitter,
        operand: Operand,
        index: Expr,
        packed: dict[str, tirx.Buffer],
        block: Expr,
        counts: list[list[tirx.Buffer]],
    ) -> list[Expr]:
        """The products of one vector: ``(sum of factors - 2 sum of factor times count) / 2**(codes - 1)``, exactly."""
        lanes, found = self.lanes, []
        for u in range(self.units):
            value = cast(load(operand.correction, 1, index), "int32", lanes)
            for j in range(self.factors):
                factor = cast(load(operand.plain, 1, index, j), "int32", lanes)
                value = value - factor * load(counts[j][u], lanes, 0)
            bias = load(packed["bias"], lanes, block, u * lanes)
            found.append(emitter.bind((value >> constant(self.codes - 1, "int32", lanes)) + bias))
        return found


def _words(length: int) -> int:
    return -(-length // WORD)


def _abs(x: Expr) -> Expr:
    return tirx.Max(x, constant(0, "int32", lanes_of(x)) - x)


def _popcount(x: Expr, kind: str, lanes: int) -> Expr:
    return tirx.call_llvm_pure_intrin(vector(f"int{kind[1:]}", lanes), f"llvm.ctpop.v{lanes}{kind}", x)


def _of_bytes(emitter: Emitter, x: Expr) -> Expr:
    """The four unsigned bytes of each word added up."""
    lanes = lanes_of(x)
    even, half = constant(0x00FF00FF, "int32", lanes), constant(0xFFFF, "int32", lanes)
    pairs = emitter.bind((x & even) + ((x >> constant(8, "int32", lanes)) & even))
    return (pairs & half) + (pairs >> constant(16, "int32", lanes))
