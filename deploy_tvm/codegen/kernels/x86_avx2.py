"""x86 kernels for CPUs with AVX2 but without ``vpdpbusd``.

``vpmaddubsw`` adds pairs of unsigned by signed products with saturation to 16 bits, ``vpmaddwd`` with ones adds the
pairs of its sums in 32 bits.  Both are exact here:

* 8-bit weights take the signs of the activations (``vpsignb``), which then are magnitudes: ``w x = (sgn(x) w) |x|``.
  A pair is at most 2 * 127 * 128 = 32512 < 2**15 for every ``x >= -128``, but ``-(-128)`` would leave its byte: weights
  reach down to -127 only.
* Weights of 4 bits and less are ``fields``, those of one row at different columns in a byte.  The byte, and the byte
  shifted by four, are masked to the fields that lie at the bits ``bits j`` of half a byte: their products are
  ``2^(bits j)`` times what is wanted.  ``vpmaddwd`` multiplies each sum so that all have the factor of the highest.
  One register of bytes adds up to ``2 * 2 * (2^bits - 1) 2^(bits j) * 128`` to a sum in 16 bits, so that several fit
  (:attr:`Avx2Fields.rounds`) before it is added to one in 32 bits.
"""

from __future__ import annotations

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, constant, load
from deploy_tvm.codegen.kernels.base import LinearKernel, Operand, accumulators, blocked, grouped
from deploy_tvm.codegen.kernels.fields import Field, FieldKernel
from deploy_tvm.codegen.kernels.x86_vnni import spread
from deploy_tvm.codegen.row_ops import RowOps
from deploy_tvm.codegen.rows import Row

LANES = 8
BYTES = 4 * LANES
INT16_MAX = (1 << 15) - 1


def add_pairs(a: Expr, b: Expr) -> Expr:
    """``vpmaddwd``: sums of two neighbouring products of 16-bit integers."""
    return tirx.call_llvm_pure_intrin("int32x8", "llvm.x86.avx2.pmadd.wd", a, b)


def multiply(unsigned: Expr, signed: Expr) -> Expr:
    """``vpmaddubsw``: sums of two neighbouring products of bytes, in 16 bits."""
    return tirx.call_llvm_pure_intrin("int16x16", "llvm.x86.avx2.pmadd.ub.sw", unsigned, signed)


def with_signs(a: Expr, signs: Expr) -> Expr:
    """``vpsignb``: bytes of ``a``, negated where ``signs`` are negative, zero where they are zero."""
    return tirx.call_llvm_pure_intrin("int8x32", "llvm.x86.avx2.psign.b", a, signs)


class Avx2Kernel8(LinearKernel):
    """8-bit weights by transfer of signs."""

    lanes, units, group, operand_dtype, tile_vectors = LANES, 4, 4, "int8", 2
    weights = (-127, 127)
    separable = True

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        blocks = self.blocks(weight.shape[0])
        groups = grouped(blocked(weight, blocks, self.block_rows).reshape(-1, weight.shape[1]), 4)
        order = groups.reshape(blocks, self.block_rows, -1, 4).transpose(0, 2, 1, 3)
        return {
            "weight": np.ascontiguousarray(order).reshape(blocks, -1, self.block_rows * 4),
            "bias": blocked(bias, blocks, self.block_rows),
        }

    def allocate(self, emitter: Emitter, vectors: int, length: int) -> Operand:
        """Magnitudes as the operand, the activations themselves beside them."""
        plain = super().allocate(emitter, vectors, length)
        magnitudes = emitter.alloc((vectors, self.padded(length)), "uint8", "magnitudes")
        return Operand(magnitudes, plain.correction, plain.buffer)

    def fill(self, emitter: Emitter, ops: RowOps, operand: Operand, vector: Expr, x: Row) -> None:
        super().fill(emitter, ops, Operand(operand.plain, operand.correction), vector, x)
        with emitter.loop(-(-x.length // BYTES)) as i:
            signed = emitter.bind(load(operand.plain, BYTES, vector, i * BYTES))
            magnitude = tirx.reinterpret("uint8x32", with_signs(signed, signed))
            emitter.store(operand.buffer, magnitude, vector, i * BYTES)

    def registers(self, emitter: Emitter, packed: dict[str, tirx.Buffer], block: Expr, k: Expr) -> list[list[Expr]]:
        """For each unit the registers whose sum are its weights at the four columns from ``4 k`` on."""
        return [[emitter.bind(load(packed["weight"], BYTES, block, k, u * BYTES))] for u in range(self.units)]

    def tile(
        self, emitter: Emitter, operand: Operand, vectors: list[Expr], packed: dict[str, tirx.Buffer], block: Expr
    ) -> list[list[Expr]]:
        bias = [load(packed["bias"], LANES, block, u * LANES) for u in range(self.units)]
        acc = accumulators(emitter, [bias for _ in vectors])
        one = constant(1, "int16", 2 * LANES)
        with emitter.loop(packed["weight"].shape[1], "k") as k:
            weights = self.registers(emitter, packed, block, k)
            for v, index in enumerate(vectors):
                signs = emitter.bind(spread(operand.plain, LANES, index, k))
                magnitudes = emitter.bind(spread(operand.buffer, LANES, index, k))
                for u in range(self.units):
                    for register in weights[u]:
                        pairs = multiply(magnitudes, with_signs(register, signs))
                        emitter.store(acc[v][u], load(acc[v][u], LANES, 0) + add_pairs(pairs, one), 0)
        return [[load(buffer, LANES, 0) for buffer in row] for row in acc]


class Avx2Fields(FieldKernel):
    """Weights of 4, 2 or 1 bits."""

    lanes = LANES

    def __init__(self, field: Field, *, tile_vectors: int, units: int = 4) -> None:
        super().__init__(field)
        self.units, self.tile_vectors, self.group = units, tile_vectors, 4 * field.in_a_byte

    @property
    def masks(self) -> list[int]:
        """Of the fields in the lower half of a byte."""
        lowest = (1 << self.field.bits) - 1
        return [lowest << place for place in range(0, 4, self.field.bits)]

    @property
    def rounds(self) -> int:
        """Registers of bytes whose products fit the sums in 16 bits: two fields each, pairs of columns."""
        return INT16_MAX // (2 * 2 * max(self.masks) * 128)

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        blocks, field = self.blocks(weight.shape[0]), self.field
        fields = grouped(blocked(field.of(weight), blocks, self.block_rows).reshape(-1, weight.shape[1]), self.group)
        bytes_ = field.joined(fields.reshape(blocks, self.block_rows, -1, field.in_a_byte, 4), 3)
        order = bytes_.transpose(0, 2, 1, 3)
        return {
            "weight": np.ascontiguousarray(order).reshape(blocks, order.shape[1], -1),
            "bias": blocked(bias, blocks, self.block_rows),
        }

    def tile(
        self, emitter: Emitter, operand: Operand, vectors: list[Expr], packed: dict[str, tirx.Buffer], block: Expr
    ) -> list[list[Expr]]:
        zeros = [[constant(0, "int32", LANES)] * self.units for _ in vectors]
        acc = accumulators(emitter, zeros)
        groups = int(packed["weight"].shape[1])

        def some(first: Expr, count: int) -> None:
            """Add the products of ``count`` groups of columns."""
            sums = self._sums(emitter, operand, vectors, packed["weight"], block, [first + n for n in range(count)])
            for v, row in enumerate(sums):
                for u, by_place in enumerate(row):
                    emitter.store(
                        acc[v][u], sum(map(self._widened, range(len(by_place)), by_place), load(acc[v][u], LANES, 0)), 0
                    )

        if groups // self.rounds:
            with emitter.loop(groups // self.rounds, "k") as k:
                some(k * self.rounds, self.rounds)
        if groups % self.rounds:
            some(groups // self.rounds * self.rounds, groups % self.rounds)
        # Sums have the factor of the highest field; where a weight is twice its field, it is one place less to shift.
        power = (max(self.masks) // self.masks[0]).bit_length() - self.field.step
        results = []
        for row, index in zip(acc, vectors, strict=True):
            sums = [load(buffer, LANES, 0) for buffer in row]
            sums = [s >> constant(power, "int32", LANES) for s in sums] if power else sums
            results.append(self.corrected(emitter, operand, index, packed, block, sums))
        return results

    def _sums(
        self,
        emitter: Emitter,
        operand: Operand,
        vectors: list[Expr],
        weight: tirx.Buffer,
        block: Expr,
        groups: list[Expr],
    ) -> list[list[list[Expr]]]:
        """Sums in 16 bits: [vector][unit][place of a field in half a byte]."""
        masks = [constant(mask, "uint8", BYTES) for mask in self.masks]
        four, places = constant(4, "uint16", 2 * LANES), len(self.masks)
        sums: list[list[list[Expr]]] = [[[None] * places for _ in range(self.units)] for _ in vectors]
        for group in groups:
            for u in range(self.units):
                whole = emitter.bind(load(weight, BYTES, block, group, u * BYTES))
                shifted = tirx.reinterpret("uint8x32", tirx.reinterpret("uint16x16", whole) >> four)
                for half, bytes_ in enumerate((whole, emitter.bind(shifted))):
                    for j, mask in enumerate(masks):
                        field = emitter.bind(bytes_ & mask)
                        for v, index in enumerate(vectors):
                            x = spread(operand.buffer, LANES, index, group * self.field.in_a_byte + half * places + j)
                            product, so_far = multiply(field, x), sums[v][u][j]
                            sums[v][u][j] = emitter.bind(product if so_far is None else so_far + product)
        return sums

    def _widened(self, j: int, pairs: Expr) -> Expr:
        """Sums of the field j in 32 bits, all with the factor of the highest field."""
        factor = max(self.masks) // self.masks[j]
        return add_pairs(pairs, constant(factor, "int16", 2 * LANES))
