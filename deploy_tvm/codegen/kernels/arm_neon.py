"""ARM kernels for NEON without dot products: ARMv8.0 (``smull``, ``smlal2``, ``sadalp``) and ARMv7 (``vmull`` ...).

The widest multiplication of bytes gives eight 16-bit products.  Two of them fit into 16 bits together with 8-bit
weights (2 * 127 * 128 < 2**15), 17 with nibbles of unsigned fields (17 * 15 * 128 < 2**15); then pairs of
neighbours are added to 32-bit accumulators.  So the two halves of a register hold four rows with two columns each, and
the activations are stored as ``a b a b a b a b c d c d c d c d``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, constant, load
from deploy_tvm.codegen.kernels.arm_tables import pieces
from deploy_tvm.codegen.kernels.base import LinearKernel, Operand, accumulators, blocked, grouped
from deploy_tvm.codegen.kernels.fields import Field, FieldKernel
from deploy_tvm.codegen.row_ops import RowOps
from deploy_tvm.codegen.rows import Row

LANES, HALF, COLUMNS = 4, 8, 4
REPEATED = [0, 1] * 4 + [2, 3] * 4


@dataclass(frozen=True)
class Arithmetic:
    """What one instruction set calls its instructions.

    ``multiply``: eight int8 by eight int8, int16 products.  ``add_pairs(acc, products)``: neighbouring pairs of eight
    int16, added to four int32.
    """

    multiply: str
    add_pairs: Callable[[Expr, Expr], Expr]

    def products(self, acc: Expr | None, weights: Expr, x: Expr) -> Expr:
        """To eight int16 the products of both halves of two registers of bytes."""
        for a, b in zip(pieces(weights, HALF), pieces(x, HALF), strict=True):
            product = tirx.call_llvm_pure_intrin("int16x8", self.multiply, a, b)
            acc = product if acc is None else acc + product
        return acc


def add_pairs(acc: Expr, products: Expr) -> Expr:
    """``sadalp`` (the compiler joins the two)."""
    return acc + tirx.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.saddlp.v4i32.v8i16", products)


A64 = Arithmetic("llvm.aarch64.neon.smull.v8i16", add_pairs)


def interleaved(weight: np.ndarray, blocks: int, units: int, groups: int) -> np.ndarray:
    """[rows, columns] -> [blocks, columns / (4 groups), unit, group, 2 halves * 4 rows * 2 columns]."""
    rows = blocked(weight, blocks, units * LANES).reshape(-1, weight.shape[1])
    parts = grouped(rows, COLUMNS * groups).reshape(blocks, units, LANES, -1, groups, 2, 2)
    order = np.ascontiguousarray(parts.transpose(0, 3, 1, 4, 5, 2, 6))
    return order.reshape(*order.shape[:4], -1)


class NeonKernel(LinearKernel):
    """What both widths of weights share: activations repeated for the rows of a register."""

    lanes, operand_dtype = LANES, "int8"

    def __init__(self, arithmetic: Arithmetic, units: int, groups: int, tile_vectors: int) -> None:
        """``groups`` of four columns are multiplied in one round of the loop."""
        self.arithmetic, self.units, self.groups, self.tile_vectors = arithmetic, units, groups, tile_vectors
        self.group = COLUMNS * groups

    def allocate(self, emitter: Emitter, vectors: int, length: int) -> Operand:
        plain = super().allocate(emitter, vectors, length)
        repeated = emitter.alloc((vectors, self.padded(length) * 4), "int8", "operand")
        return Operand(repeated, plain.correction, plain.buffer)

    def fill(self, emitter: Emitter, ops: RowOps, operand: Operand, vector: Expr, x: Row) -> None:
        plain = operand.plain
        super().fill(emitter, ops, Operand(plain, operand.correction), vector, x)
        with emitter.loop(-(-x.length // self.group) * self.groups) as i:
            four = emitter.bind(load(plain, COLUMNS, vector, i * COLUMNS))
            spread = tirx.Shuffle([four] * 4, [tirx.const(k, "int32") for k in REPEATED])
            emitter.store(operand.buffer, spread, vector, i * 16)

    def activations(self, emitter: Emitter, operand: Operand, vectors: list[Expr], k: Expr) -> list[list[Expr]]:
        """[vector][group] registers of activations for round ``k``."""
        places = [[(index, (k * self.groups + g) * 16) for g in range(self.groups)] for index in vectors]
        return [[emitter.bind(load(operand.buffer, 16, *place)) for place in row] for row in places]


class Neon8(NeonKernel):
    """8-bit weights: three instructions for 16 products.  Two products with -128 would leave 16 bits."""

    weights = (-127, 127)

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        blocks = self.blocks(weight.shape[0])
        return {
            "weight": interleaved(weight, blocks, self.units, self.groups),
            "bias": blocked(bias, blocks, self.block_rows),
        }

    def tile(
        self, emitter: Emitter, operand: Operand, vectors: list[Expr], packed: dict[str, tirx.Buffer], block: Expr
    ) -> list[list[Expr]]:
        bias = [load(packed["bias"], LANES, block, u * LANES) for u in range(self.units)]
        acc = accumulators(emitter, [bias for _ in vectors])
        with emitter.loop(packed["weight"].shape[1], "k") as k:
            x = self.activations(emitter, operand, vectors, k)
            for g in range(self.groups):
                for u, registers in enumerate(self.registers(emitter, packed, block, k, g)):
                    for v in range(len(vectors)):
                        for weights in registers:
                            pairs = self.arithmetic.products(None, weights, x[v][g])
                            total = self.arithmetic.add_pairs(load(acc[v][u], LANES, 0), pairs)
                            emitter.store(acc[v][u], total, 0)
        return [[load(buffer, LANES, 0) for buffer in row] for row in acc]

    def registers(
        self, emitter: Emitter, packed: dict[str, tirx.Buffer], block: Expr, k: Expr, group: int
    ) -> list[list[Expr]]:
        """For each unit the registers whose sum are its weights at the columns of one group."""
        return [[emitter.bind(load(packed["weight"], 16, block, k, u, group, 0))] for u in range(self.units)]


class NeonFields(FieldKernel, NeonKernel):
    """Weights of 4 and 2 bits: fields of nibbles, two of which lie in a byte.

    A nibble of two fields is multiplied whole and masked to the lower one: ``f_1 x = (p - f_0 x) >> 2``, once a
    product.  ``groups`` groups of columns are added up in 16 bits before they join the accumulators: 17 products with a
    nibble would fit, and a group brings two.
    """

    def __init__(self, arithmetic: Arithmetic, field: Field, units: int, groups: int, tile_vectors: int) -> None:
        FieldKernel.__init__(self, field)
        NeonKernel.__init__(self, arithmetic, units, groups, tile_vectors)
        self.loads = units // field.in_a_byte

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        blocks, field = self.blocks(weight.shape[0]), self.field
        # What fills up the last group meets zeros.
        fields = blocked(field.of(weight), blocks, self.block_rows)
        bytes_ = field.joined(fields.reshape(blocks, self.loads, field.in_a_byte, LANES, -1), 2)
        return {
            "weight": interleaved(bytes_.reshape(-1, weight.shape[1]), blocks, self.loads, self.groups),
            "bias": blocked(bias, blocks, self.block_rows),
        }

    def tile(
        self, emitter: Emitter, operand: Operand, vectors: list[Expr], packed: dict[str, tirx.Buffer], block: Expr
    ) -> list[list[Expr]]:
        zeros = [constant(0, "int32", LANES)] * self.units
        acc = accumulators(emitter, [zeros for _ in vectors])
        fields = self.field.in_a_byte
        with emitter.loop(packed["weight"].shape[1], "k") as k:
            x = self.activations(emitter, operand, vectors, k)
            for unit in range(self.loads):
                sums: list[list[Expr | None]] = [[None] * fields for _ in vectors]
                for g in range(self.groups):
                    whole = emitter.bind(load(packed["weight"], 16, block, k, unit, g, 0))
                    for n, part in enumerate(self._parts(emitter, whole)):
                        for v in range(len(vectors)):
                            sums[v][n] = emitter.hold(self.arithmetic.products(sums[v][n], part, x[v][g]))
                for v in range(len(vectors)):
                    for n in range(fields):
                        buffer = acc[v][fields * unit + n]
                        total = self.arithmetic.add_pairs(load(buffer, LANES, 0), sums[v][n])
                        emitter.store(buffer, total, 0)
        results = []
        for row, index in zip(acc, vectors, strict=True):
            apart = self.apart([load(buffer, LANES, 0) for buffer in row], 4 // self.field.bits)
            results.append(self.corrected(emitter, operand, index, packed, block, apart))
        return results

    def _parts(self, emitter: Emitter, whole: Expr) -> list[Expr]:
        """Of both nibbles of every byte: the lower field alone where there are two, and the nibble."""
        mask, four = constant(15, "uint8", 16), constant(4, "uint8", 16)
        lower = constant((1 << self.field.bits) - 1, "uint8", 16)
        parts = []
        for nibble in (emitter.bind(whole & mask), emitter.bind(whole >> four)):
            parts += [nibble] if self.field.bits == 4 else [emitter.bind(nibble & lower), nibble]
        return [tirx.reinterpret("int8x16", part) for part in parts]
