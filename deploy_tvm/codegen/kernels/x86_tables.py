"""Table look-ups in registers: a permutation instruction picks an entry for every lane at once.

These replace the chains of selections of ``rows.RowOps``, entry for entry
(``tests/deploy_tvm/codegen/test_kernels.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, cast, constant, constant_vector, vector
from deploy_tvm.codegen.row_ops import RowOps
from deploy_tvm.codegen.rows import Block, Row

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
        operands: tuple[Any, ...]
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

    def _instructions(self, entries: int) -> int:
        """What a look-up in a table of so many entries takes, about."""
        parts = -(-entries // (2 * self.lanes if self.pair else self.lanes))
        return 3 * parts - 2

    def search(self, block: Block, table: np.ndarray, x: Expr, minimum: int) -> Expr:
        """How many elements of the ascending ``table`` are <= x, which is from ``minimum`` to ``-1 - minimum``."""
        known = int(np.searchsorted(table, minimum, side="right"))
        rest = table[known:][table[known:] < -minimum]
        within = Buckets.of(rest, minimum, (2 if self.pair else 1) * self.lanes)
        halves = sum(self._instructions(1 << level) + 3 for level in range(len(rest).bit_length()))
        rounds = self._instructions(len(within.before)) + within.rounds * (self._instructions(len(within.entries)) + 2)
        found = self._in_buckets(block, within, x) if rounds < halves else self._by_halves(block, rest, x)
        return found + constant(known, "int32", self.lanes)

    def _in_buckets(self, block: Block, within: Buckets, x: Expr) -> Expr:
        """From the bucket of x, whose first elements are known, one after the other."""
        lanes, hold = self.lanes, block.emitter.hold
        # Negative buckets are the upper ones: a permutation looks at the low bits of the index only.
        bucket = x >> constant(within.shift, "int32", lanes)
        found = hold(self.permute(within.before, bucket))
        for _ in range(within.rounds):
            entry = self.permute(within.entries, found)
            found = hold(tirx.Select(x >= entry, found + constant(1, "int32", lanes), found))
        return found

    def _by_halves(self, block: Block, rest: np.ndarray, x: Expr) -> Expr:
        """A look-up for each bit of the answer, the highest first; each has a table twice as long as the one before."""
        lanes, hold = self.lanes, block.emitter.hold
        bits = len(rest).bit_length()
        padded = np.pad(rest, (0, (1 << bits) - len(rest)), constant_values=INT32_MAX)
        found = constant(0, "int32", lanes)
        for level in range(bits):
            half = 1 << (bits - 1 - level)
            entries = padded[half - 1 :: 2 * half]
            more = x >= self.permute(entries, found)
            twice = found + found if level else found
            found = hold(tirx.Select(more, twice + constant(1, "int32", lanes), twice))
        return found


@dataclass(frozen=True)
class Buckets:
    """The range of a search cut into equal parts, in the order of the low bits of ``x >> shift``.

    before: for each, how many elements are below its first number or equal.  rounds: the most that follow in one.
    """

    shift: int
    before: np.ndarray
    rounds: int
    entries: np.ndarray

    @staticmethod
    def of(rest: np.ndarray, minimum: int, count: int) -> Buckets:
        """``count`` buckets, a power of two, of the integers from ``minimum`` to ``-1 - minimum``."""
        width = -2 * minimum // count
        first = minimum + width * np.arange(count)
        ends = np.searchsorted(rest, first + width - 1, side="right")
        before = np.searchsorted(rest, first, side="right")
        order = np.roll(before, -(count // 2))
        entries = np.append(rest, INT32_MAX)
        return Buckets(width.bit_length() - 1, order, int((ends - before).max()), entries)
