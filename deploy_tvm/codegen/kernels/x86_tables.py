"""Table look-ups in registers: a permutation instruction picks an entry for every lane at once.

These replace the chains of selections of ``rows.RowOps``, entry for entry (``tests/test_kernels.py``).
"""

from __future__ import annotations

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, cast, constant, constant_vector, vector
from deploy_tvm.codegen.rows import Block, Row, RowOps

INT32_MAX = (1 << 31) - 1


class PermutingOps(RowOps):
    """``take`` by permutations of registers and ``count_le`` by a binary search made of them.

    With AVX512 one instruction reaches 16 (``vpermd``) or 32 entries (``vpermi2d``), with AVX2 8.  Longer tables are
    cut into such pieces.
    """

    def __init__(self, emitter: Emitter, lanes: int) -> None:
        super().__init__(emitter, lanes)
        self.pair = lanes == 16

    def take(self, table: np.ndarray, index: Row) -> Row:
        plain = super().take(table, index)

        def function(block: Block, start: int) -> Expr:
            if block.lanes != self.lanes:
                return plain.function(block, start)
            return self.permute(table, block.at(index, start))

        return Row(index.size, "int32", function, index.breaks)

    def count_le(self, table: np.ndarray, x: Row) -> Row:
        plain = super().count_le(table, x)

        def function(block: Block, start: int) -> Expr:
            if block.lanes != self.lanes:
                return plain.function(block, start)
            return self.search(block, table, cast(block.at(x, start), "int32"), int(np.iinfo(x.dtype).min))

        return Row(x.size, "int32", function, x.breaks)

    def permute(self, table: np.ndarray, index: Expr) -> Expr:
        """``table[index]`` in every lane."""
        lanes, kind = self.lanes, vector("int32", self.lanes)
        table = np.pad(table, (0, -len(table) % lanes), mode="edge")
        registers = [constant_vector(part.tolist(), "int32") for part in np.split(table, len(table) // lanes)]
        # The instructions look at the low bits of the index only: each piece answers for its own range.
        value, k = None, 0
        while k < len(registers):
            first = k
            if self.pair and k + 1 < len(registers):
                operands = ("llvm.x86.avx512.vpermi2var.d.512", registers[k], index, registers[k + 1])
                k += 2
            else:
                name = "llvm.x86.avx512.permvar.si.512" if lanes == 16 else "llvm.x86.avx2.permd"
                operands = (name, registers[k], index)
                k += 1
            here = tirx.call_llvm_pure_intrin(kind, *operands)
            value = (
                here if value is None else tirx.Select(index >= constant(first * lanes, "int32", lanes), here, value)
            )
        return value

    def search(self, block: Block, table: np.ndarray, x: Expr, minimum: int) -> Expr:
        """How many elements of the ascending ``table`` are <= x >= ``minimum``: a look-up a bit of the answer."""
        lanes = self.lanes
        known = int(np.searchsorted(table, minimum, side="right"))
        bits = int(len(table) - known).bit_length()
        # rest[c] tells whether there are more than known + c; there are never more than the table has.
        rest = np.pad(table[known:], (0, (1 << bits) - (len(table) - known)), constant_values=INT32_MAX)
        found = constant(0, "int32", lanes)
        for bit in reversed(range(bits)):
            last = block.emitter.hold(found + constant((1 << bit) - 1, "int32", lanes))
            more = x >= self.permute(rest, last)
            found = block.emitter.hold(tirx.Select(more, last + constant(1, "int32", lanes), found))
        return found + constant(known, "int32", lanes)
