"""ARM kernels with ``sdot`` (dot products of four signed bytes, from ARMv8.2 on).

The four rows of a register of accumulators meet the four activations of one lane of x: ``sdot`` by element needs no
broadcast.

Weights of 4, 2 and 1 bits lie as ``fields`` in bytes, f_0 in the lowest bits, one of each of 8 / bits rows.  A byte is
masked to its lowest fields (``FieldKernel.apart``): one mask for all fields but the highest, which needs none.  The
byte as it is would be a negative number from 128 on: stored is the byte less 128, and ``128 sum(x)`` is added once.
Sums modulo 2**32 do: what is shifted fits int32 up to 2**31 / (240 * 128) = 69905 columns.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, cast, constant, load
from deploy_tvm.codegen.kernels.base import LinearKernel, Operand, accumulators, blocked, grouped
from deploy_tvm.codegen.kernels.fields import Field, FieldKernel

LANES = 4
STEPS = 4  # groups of four activations in a register of x
MOVED = 128  # what a byte of unsigned fields is stored less, to be a signed one


def dot(acc: Expr, a: Expr, b: Expr) -> Expr:
    """``sdot``: to each of four int32 the products of four int8."""
    return tirx.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.sdot.v4i32.v16i8", acc, a, b)


def spread(x: Expr, step: int) -> Expr:
    """Four neighbouring activations in every lane; the compiler makes it part of ``sdot``."""
    fours = tirx.reinterpret("int32x4", x)
    return tirx.reinterpret("int8x16", tirx.Shuffle([fours], [tirx.const(step, "int32")] * LANES))


def interleaved(weight: np.ndarray, blocks: int, units: int) -> np.ndarray:
    """Bytes [rows, columns] -> [blocks, columns / 16, 4 steps * units * 4 rows * 4 columns]."""
    rows = blocked(weight, blocks, units * LANES).reshape(-1, weight.shape[1])
    groups = grouped(rows, 4 * STEPS).reshape(blocks, units, LANES, -1, STEPS, 4)
    order = np.ascontiguousarray(groups.transpose(0, 3, 4, 1, 2, 5))
    return order.reshape(blocks, order.shape[1], -1)


class DotKernel(LinearKernel):
    """What all widths share: a block is ``loads`` registers of bytes at each four columns.

    One vector meets all of them in one loop.  Several meet ``short`` of them in each loop, so that the accumulators of
    ``tile_vectors`` vectors fit the 32 registers: then a byte is loaded and taken apart once for all vectors.
    """

    lanes, group, operand_dtype = LANES, 4 * STEPS, "int8"
    loads: int
    short: int
    in_a_byte = 1

    @abstractmethod
    def parts(self, emitter: Emitter, packed: dict[str, tirx.Buffer], register: Expr) -> list[list[Expr]]:
        """What of a register of bytes is multiplied: ``in_a_byte`` times the registers whose products are added."""

    def sums(
        self,
        emitter: Emitter,
        operand: Operand,
        vectors: list[Expr],
        packed: dict[str, tirx.Buffer],
        block: Expr,
    ) -> list[list[Expr]]:
        """[vector][loads * in_a_byte] sums of products with the parts of all registers."""
        many = len(vectors) > 1
        result: list[list[Expr]] = [[] for _ in vectors]
        for first in range(0, self.loads, self.short if many else self.loads):
            registers = range(first, min(first + self.short, self.loads) if many else self.loads)
            zeros = [constant(0, "int32", LANES)] * (len(registers) * self.in_a_byte)
            acc = accumulators(emitter, [zeros for _ in vectors])
            with emitter.loop(packed["weight"].shape[1], "k") as k:
                x = [emitter.bind(load(operand.buffer, 16, index, k * 16)) for index in vectors]
                for step in range(STEPS):
                    for r, register in enumerate(registers):
                        place = (step * self.loads + register) * 16
                        whole = emitter.bind(load(packed["weight"], 16, block, k, place))
                        for j, parts in enumerate(self.parts(emitter, packed, whole)):
                            for v in range(len(vectors)):
                                buffer = acc[v][r * self.in_a_byte + j]
                                for part in parts:
                                    emitter.store(buffer, dot(load(buffer, LANES, 0), part, spread(x[v], step)), 0)
            for v in range(len(vectors)):
                result[v] += [load(buffer, LANES, 0) for buffer in acc[v]]
        return result


class Dot8(DotKernel):
    """8-bit weights."""

    def __init__(self, loads: int = 16, short: int = 4, tile_vectors: int = 6) -> None:
        self.loads = self.units = loads
        self.short, self.tile_vectors = short, tile_vectors

    def parts(self, emitter: Emitter, packed: dict[str, tirx.Buffer], register: Expr) -> list[list[Expr]]:
        return [[register]]

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        blocks = self.blocks(weight.shape[0])
        return {
            "weight": interleaved(weight, blocks, self.units),
            "bias": blocked(bias, blocks, self.block_rows),
        }

    def tile(
        self, emitter: Emitter, operand: Operand, vectors: list[Expr], packed: dict[str, tirx.Buffer], block: Expr
    ) -> list[list[Expr]]:
        sums = self.sums(emitter, operand, vectors, packed, block)
        return [[s + load(packed["bias"], LANES, block, u * LANES) for u, s in enumerate(row)] for row in sums]


class DotFields(FieldKernel, DotKernel):
    """Weights of 4, 2 or 1 bits."""

    def __init__(self, field: Field, *, loads: int, short: int, tile_vectors: int) -> None:
        super().__init__(field)
        self.loads, self.short, self.tile_vectors = loads, short, tile_vectors
        self.in_a_byte = field.in_a_byte
        self.units = loads * self.in_a_byte

    def parts(self, emitter: Emitter, packed: dict[str, tirx.Buffer], register: Expr) -> list[list[Expr]]:
        masks = [(1 << self.field.bits * (j + 1)) - 1 for j in range(self.in_a_byte - 1)]
        return [*([emitter.bind(register & constant(mask, "int8", 16))] for mask in masks), [register]]

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        blocks, field = self.blocks(weight.shape[0]), self.field
        fields = blocked(field.of(weight), blocks, self.block_rows)
        bytes_ = field.joined(fields.reshape(blocks, self.loads, self.in_a_byte, LANES, -1), 2) ^ MOVED
        return {
            # What fills up the last group meets zeros.
            "weight": interleaved(bytes_.view(np.int8).reshape(-1, weight.shape[1]), blocks, self.loads),
            "bias": blocked(bias, blocks, self.block_rows),
        }

    def tile(
        self, emitter: Emitter, operand: Operand, vectors: list[Expr], packed: dict[str, tirx.Buffer], block: Expr
    ) -> list[list[Expr]]:
        sums = self.sums(emitter, operand, vectors, packed, block)
        results = []
        for row, index in zip(sums, vectors, strict=True):
            # -128 sum(x), a multiple of -offset sum(x): what the whole bytes lack.
            correction = cast(load(operand.correction, 1, index), "int32", LANES)
            moved = emitter.bind(correction * constant(MOVED // self.field.offset, "int32", LANES))
            nested = [emitter.bind(s if (u + 1) % self.in_a_byte else s - moved) for u, s in enumerate(row)]
            apart = self.apart(nested, self.in_a_byte)
            results.append(self.corrected(emitter, operand, index, packed, block, apart))
        return results
