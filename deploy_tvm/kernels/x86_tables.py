"""Table look-ups in registers: a permutation instruction picks one of 16 or 32 entries for every lane at once."""

from __future__ import annotations

import numpy as np
from tvm import tirx

from deploy_tvm.emitter import Expr, cast, constant, constant_vector
from deploy_tvm.rows import Block, Row, RowOps

LANES = 16
INT32_MAX = (1 << 31) - 1


class Avx512Ops(RowOps):
    """``vpermd`` and ``vpermi2d`` look up tables of up to 16 and 32 entries; longer ones are cut into such pieces."""

    def take(self, table: np.ndarray, index: Row) -> Row:
        plain = super().take(table, index)

        def function(block: Block, start: int) -> Expr:
            if block.lanes != LANES:
                return plain.function(block, start)
            return permute(np.pad(table, (0, -len(table) % LANES), mode="edge"), block.at(index, start))

        return Row(index.size, "int32", function, index.breaks)

    def count_le(self, table: np.ndarray, x: Row) -> Row:
        plain = super().count_le(table, x)

        def function(block: Block, start: int) -> Expr:
            if block.lanes != LANES:
                return plain.function(block, start)
            return search(block, table, cast(block.at(x, start), "int32"), int(np.iinfo(x.dtype).min))

        return Row(x.size, "int32", function, x.breaks)


def permute(table: np.ndarray, index: Expr) -> Expr:
    """``table[index]`` in every lane, for a table of whole registers."""
    registers = [constant_vector(part.tolist(), "int32") for part in np.split(table, len(table) // LANES)]
    # The instructions look at the low bits of the index only: each pair of registers answers for its own range.
    value = None
    for k in range(0, len(registers), 2):
        if k + 1 < len(registers):
            pair = (registers[k], index, registers[k + 1])
            here = tirx.call_llvm_pure_intrin("int32x16", "llvm.x86.avx512.vpermi2var.d.512", *pair)
        else:
            here = tirx.call_llvm_pure_intrin("int32x16", "llvm.x86.avx512.permvar.si.512", registers[k], index)
        value = here if value is None else tirx.Select(index >= constant(k * LANES, "int32", LANES), here, value)
    return value


def search(block: Block, table: np.ndarray, x: Expr, minimum: int) -> Expr:
    """How many elements of the ascending ``table`` are <= x >= ``minimum``: one look-up for each bit of the answer."""
    known = int(np.searchsorted(table, minimum, side="right"))
    # Entry c of the padded rest answers "are there more than known + c": never, past the table's end.
    rest = table[known:]
    rest = np.pad(rest, (0, -(len(rest) + 1) % LANES + 1), constant_values=INT32_MAX)
    found = constant(0, "int32", LANES)
    for bit in reversed(range(int(len(table) - known).bit_length())):
        trial = block.emitter.hold(found + constant(1 << bit, "int32", LANES))
        last = tirx.Min(trial, constant(len(rest), "int32", LANES)) - constant(1, "int32", LANES)
        found = block.emitter.hold(tirx.Select(x >= permute(rest, last), trial, found))
    return found + constant(known, "int32", LANES)
