"""Table look-ups in NEON registers.

These replace the chains of selections of ``rows.RowOps``, entry for entry
(``tests/deploy_tvm/codegen/test_arm_kernels.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, cast, constant, constant_vector, lanes_of, vector
from deploy_tvm.codegen.row_ops import RowOps
from deploy_tvm.codegen.rows import Block, Row

LANES = 8
INT16_MIN, INT16_MAX = -(1 << 15), (1 << 15) - 1
# Entry i of a table of 16-bit numbers is its bytes 2 i and 2 i + 1: the index of both, as one 16-bit number.
STRIDE, FIRST = 0x0202, 0x0100


@dataclass(frozen=True)
class Instructions:
    """What one instruction set calls its instructions.

    ``look_up(registers of 16 bytes, index int8x16)`` picks bytes of tables of up to ``entries`` 16-bit numbers (a
    power of two).  On int32x4, ``double_high`` gives the upper halves of doubled products and ``shift_rounding`` moves
    by int32x4, right where negative, rounding half up.  ``narrow_saturating``: int16x4 of int32x4.
    """

    look_up: Callable[[list[Expr], Expr], Expr]
    entries: int
    double_high: str
    shift_rounding: str
    narrow_saturating: str


def look_up(table: list[Expr], index: Expr) -> Expr:
    """``tbl``: bytes of a table of 1 to 4 registers."""
    name = f"llvm.aarch64.neon.tbl{len(table)}.v16i8"
    return tirx.call_llvm_pure_intrin("int8x16", name, *table, index)


A64 = Instructions(
    look_up,
    32,
    "llvm.aarch64.neon.sqdmulh.v4i32",
    "llvm.aarch64.neon.srshl.v4i32",
    "llvm.aarch64.neon.sqxtn.v4i16",
)


def pieces(x: Expr, lanes: int) -> list[Expr]:
    """A register cut into smaller ones."""
    return [
        tirx.Shuffle([x], [tirx.const(first + i, "int32") for i in range(lanes)])
        for first in range(0, lanes_of(x), lanes)
    ]


def joined(parts: list[Expr]) -> Expr:
    """Registers, one after the other, as one."""
    lanes = sum(lanes_of(part) for part in parts)
    return tirx.Shuffle(parts, [tirx.const(i, "int32") for i in range(lanes)])


class TableOps(RowOps):
    """``take`` and ``count_le`` by ``tbl``."""

    def __init__(self, emitter: Emitter, instructions: Instructions) -> None:
        super().__init__(emitter, LANES)
        self.instructions = instructions

    def take(self, table: np.ndarray, index: Row) -> Row:
        plain = super().take(table, index)
        if len(table) > self.instructions.entries:
            return plain

        def function(block: Block, start: int) -> Expr:
            if block.lanes != LANES:
                return plain.function(block, start)
            bytes_i16 = self.byte_index(cast(block.at(index, start), "int16"))
            unsigned = np.asarray(table, np.int64) & 0xFFFFFFFF
            low = self.entries(unsigned & 0xFFFF, bytes_i16)
            if np.min(table) >= INT16_MIN and np.max(table) <= INT16_MAX:
                return cast(low, "int32")
            high = self.entries(unsigned >> 16, bytes_i16)
            order = [lane for i in range(LANES) for lane in (i, LANES + i)]
            halves = tirx.Shuffle([low, high], [tirx.const(i, "int32") for i in order])
            return tirx.reinterpret(vector("int32", LANES), halves)

        return Row(index.size, "int32", function, index.breaks)

    def count_le(self, table: np.ndarray, x: Row) -> Row:
        plain = super().count_le(table, x)
        minimum = int(np.iinfo(x.dtype).min)
        known = int(np.searchsorted(table, minimum, side="right"))
        rest = table[known:]
        if x.dtype not in ("int8", "int16") or len(rest) >= self.instructions.entries:
            return plain
        rest = rest[rest <= INT16_MAX]

        def function(block: Block, start: int) -> Expr:
            if block.lanes != LANES:
                return plain.function(block, start)
            found = self.search(block, rest, cast(block.at(x, start), "int16"))
            return cast(found, "int32") + constant(known, "int32", LANES)

        return Row(x.size, "int32", function, x.breaks)

    def byte_index(self, index: Expr) -> Expr:
        """int16 indices of entries as indices of their bytes (still in 16-bit lanes)."""
        return index * constant(STRIDE, "int16", LANES) + constant(FIRST, "int16", LANES)

    def entries(self, table: np.ndarray, bytes_i16: Expr) -> Expr:
        """The 16-bit entries of ``table`` at ``bytes_i16``."""
        size = max(8, 1 << (len(table) - 1).bit_length())
        data = np.pad(table, (0, size - len(table)), mode="edge").astype(np.uint16).view(np.int8)
        registers = [constant_vector(part.tolist(), "int8") for part in data.reshape(-1, 16)]
        found = self.instructions.look_up(registers, tirx.reinterpret("int8x16", bytes_i16))
        return tirx.reinterpret(vector("int16", LANES), found)

    def search(self, block: Block, table: np.ndarray, x: Expr) -> Expr:
        """How many elements of the ascending ``table`` are <= x (int16): a look-up for each bit of the answer."""
        emitter, count = block.emitter, len(table)
        bits = count.bit_length()
        padded = np.pad(table, (0, (1 << bits) - 1 - count), constant_values=INT16_MAX)
        found = constant(FIRST, "int16", LANES)
        for bit in reversed(range(bits)):
            last = (1 << bit) - 1
            if bit == bits - 1:
                entry = constant(int(padded[last]), "int16", LANES)
            else:
                entry = self.entries(padded, found + constant(last * STRIDE, "int16", LANES))
            step = constant((1 << bit) * STRIDE, "int16", LANES)
            found = emitter.hold(found + tirx.Select(x >= entry, step, constant(0, "int16", LANES)))
        # The index of the two bytes, 514 i + 256, holds i in its upper seven bits.
        unsigned = tirx.reinterpret(vector("uint16", LANES), found) >> constant(9, "uint16", LANES)
        found = tirx.reinterpret(vector("int16", LANES), unsigned)
        if (1 << bits) - 1 == count:
            return found
        # The largest input counts the padding too.
        return tirx.Min(found, constant(count, "int16", LANES))
