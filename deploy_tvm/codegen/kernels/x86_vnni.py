"""x86 kernels with ``vpdpbusd``: AVX512-VNNI (16 lanes) and AVX-VNNI (8 lanes).

``vpdpbusd`` multiplies unsigned by signed bytes, four to a 32-bit lane, without saturation.

* 8-bit weights are the signed operand, the activations become ``x + 128``; ``-128 sum(w_row)`` is folded into the bias
  when the weights are packed.
* Weights of 4 bits and less are the unsigned operand, as ``fields``.  A byte holds one field of each of 8 / bits rows:
  f_0 in its lowest bits, f_1 above it.  It is masked to its lowest fields (``FieldKernel.apart``): one mask for all
  fields but the highest, which needs none, and one multiplication for each.  The sums fit int32: a byte is at most 255
  and ``|x|`` 128, so 2**31 / 32640 = 65793 columns do, more than any program has.
"""

from __future__ import annotations

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, constant, lanes_of, load, vector
from deploy_tvm.codegen.kernels.base import LinearKernel, Operand, Tiles, accumulators, blocked, folded, grouped
from deploy_tvm.codegen.kernels.fields import Field, FieldKernel
from deploy_tvm.codegen.rows import Row, combine


def dot(acc: Expr, unsigned: Expr, signed: Expr) -> Expr:
    """``vpdpbusd``: to each int32 the products of four bytes."""
    lanes = lanes_of(acc)
    name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
    return tirx.call_llvm_pure_intrin(vector("int32", lanes), name, acc, unsigned, signed)


def spread(buffer: tirx.Buffer, lanes: int, index: Expr, k: Expr) -> Expr:
    """Four neighbouring bytes of an operand in every lane."""
    four = tirx.reinterpret("int32", load(buffer, 4, index, k * 4))
    return tirx.reinterpret(vector(str(buffer.dtype), 4 * lanes), tirx.Broadcast(four, lanes))


class Vnni8(LinearKernel):
    """8-bit weights."""

    group, operand_dtype = 4, "uint8"
    separable = True

    def __init__(self, lanes: int, units: int = 4, tiles: Tiles | None = None) -> None:
        self.lanes, self.units, self.tiles = lanes, units, tiles
        self.tile_vectors = 6 if lanes == 16 else 2

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        blocks = self.blocks(weight.shape[0])
        groups = grouped(blocked(weight, blocks, self.block_rows).reshape(-1, weight.shape[1]), 4)
        order = groups.reshape(blocks, self.block_rows, -1, 4).transpose(0, 2, 1, 3)
        return {
            "weight": np.ascontiguousarray(order).reshape(blocks, -1, self.block_rows * 4),
            "bias": blocked(folded(bias, weight, -128), blocks, self.block_rows),
        }

    def operand_element(self, x: Row) -> Row:
        moved = combine("int8", lambda v: v ^ constant(-128, "int8", lanes_of(v)), x)
        return combine("uint8", lambda v: tirx.reinterpret(vector("uint8", lanes_of(v)), v), moved)

    def registers(self, emitter: Emitter, packed: dict[str, tirx.Buffer], block: Expr, k: Expr) -> list[list[Expr]]:
        """For each unit the registers whose sum are its weights at the four columns from ``4 k`` on."""
        width = 4 * self.lanes
        return [[emitter.bind(load(packed["weight"], width, block, k, u * width))] for u in range(self.units)]

    def tile(
        self, emitter: Emitter, operand: Operand, vectors: list[Expr], packed: dict[str, tirx.Buffer], block: Expr
    ) -> list[list[Expr]]:
        lanes, units = self.lanes, self.units
        bias = [load(packed["bias"], lanes, block, u * lanes) for u in range(units)]
        acc = accumulators(emitter, [bias for _ in vectors])
        with emitter.loop(packed["weight"].shape[1], "k") as k:
            weights = self.registers(emitter, packed, block, k)
            for v, index in enumerate(vectors):
                x = emitter.bind(spread(operand.buffer, lanes, index, k))
                for u in range(units):
                    for register in weights[u]:
                        emitter.store(acc[v][u], dot(load(acc[v][u], lanes, 0), x, register), 0)
        return [[load(buffer, lanes, 0) for buffer in row] for row in acc]


class VnniFields(FieldKernel):
    """Weights of 4, 2 or 1 bits: ``loads`` registers of bytes at each four columns.

    ``turns``: where one vector is multiplied alone, so many groups of columns have sums of their own, so that the
    instruction (4 to 5 cycles, two begin in each) need not wait for itself.
    """

    def __init__(
        self,
        lanes: int,
        field: Field,
        *,
        loads: int,
        tile_vectors: int,
        turns: int = 1,
        tiles: Tiles | None = None,
    ) -> None:
        super().__init__(field)
        self.tiles = tiles
        self.lanes, self.loads, self.tile_vectors, self.turns = lanes, loads, tile_vectors, turns
        self.units, self.group = loads * field.in_a_byte, 4 * turns

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        blocks, field = self.blocks(weight.shape[0]), self.field
        # What fills up the last group meets zeros.
        fields = grouped(blocked(field.of(weight), blocks, self.block_rows).reshape(-1, weight.shape[1]), self.group)
        order = fields.reshape(blocks, self.loads, field.in_a_byte, self.lanes, -1, 4).transpose(0, 4, 1, 2, 3, 5)
        bytes_ = field.joined(order, 3)
        return {
            "weight": np.ascontiguousarray(bytes_).reshape(blocks, bytes_.shape[1], -1),
            "bias": blocked(bias, blocks, self.block_rows),
        }

    def tile(
        self, emitter: Emitter, operand: Operand, vectors: list[Expr], packed: dict[str, tirx.Buffer], block: Expr
    ) -> list[list[Expr]]:
        lanes, fields, bits = self.lanes, self.field.in_a_byte, self.field.bits
        zeros = [[constant(0, "int32", lanes)] * self.units for _ in vectors]
        turns = self.turns if len(vectors) == 1 else 1
        acc = [accumulators(emitter, zeros) for _ in range(turns)]
        masks = [constant((1 << bits * (j + 1)) - 1, "uint8", 4 * lanes) for j in range(fields - 1)]
        with emitter.loop(packed["weight"].shape[1] // turns, "k") as round_:
            for turn in range(turns):
                k = round_ * turns + turn
                whole = [
                    emitter.bind(load(packed["weight"], 4 * lanes, block, k, u * 4 * lanes)) for u in range(self.loads)
                ]
                nested = [
                    part for register in whole for part in (*(emitter.bind(register & m) for m in masks), register)
                ]
                for v, index in enumerate(vectors):
                    x = emitter.bind(spread(operand.buffer, lanes, index, k))
                    for u, part in enumerate(nested):
                        emitter.store(acc[turn][v][u], dot(load(acc[turn][v][u], lanes, 0), part, x), 0)
        results = []
        for v, index in enumerate(vectors):
            turned = [[load(a[v][u], lanes, 0) for a in acc] for u in range(self.units)]
            sums = [emitter.bind(sum(parts[1:], start=parts[0])) for parts in turned]
            results.append(self.corrected(emitter, operand, index, packed, block, self.apart(sums, fields)))
        return results
