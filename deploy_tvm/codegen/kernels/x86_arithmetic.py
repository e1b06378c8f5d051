"""Requantization and short products in x86 registers: 32-bit lanes throughout, as ``narrow`` proves they suffice.

These replace compositions of ``irnn.arithmetic.fixed_point``, integer for integer
(``tests/deploy_tvm/codegen/test_kernels.py``).
"""

from __future__ import annotations

import numpy as np
from tvm import tirx

from deploy_tvm.codegen import narrow
from deploy_tvm.codegen.emitter import Expr, cast, constant, vector
from deploy_tvm.codegen.kernels.x86_tables import PermutingOps
from deploy_tvm.codegen.rows import Block, Row, Term, narrowed


class X86Ops(PermutingOps):
    """``requantize`` by multiplications of the even and of the odd lanes, ``short_products`` by ``vpmaddwd``."""

    def requantize(self, terms: list[Term], zero_point: int, low: int, high: int, dtype: str) -> Row:
        plain = super().requantize(terms, zero_point, low, high, dtype)
        forms = [narrow.rescale(term.multiplier, term.shift, term.low, term.high) for term in terms]
        proved = narrow.added(forms, zero_point)
        if proved is None:
            return plain
        found, least, most = proved
        factors = [
            (term.x, term.constant("multiplier", term.multiplier), term.constant("before", form.before), form.after)
            for term, form in zip(terms, found, strict=True)
        ]

        def function(block: Block, start: int) -> Expr:
            if block.lanes != self.lanes:
                return cast(block.at(plain, start), "int32")
            total = constant(zero_point, "int32", self.lanes)
            for *rows, after in factors:
                x, multiplier, before = (cast(block.at(row, start), "int32", self.lanes) for row in rows)
                total = total + self._rescaled(block, x, multiplier, before, after)
            return total

        total = Row(plain.size, "int32", function, plain.breaks)
        return narrowed(total if low <= least and most <= high else self.clip(total, low, high), dtype)

    def _rescaled(self, block: Block, x: Expr, multiplier: Expr, before: Expr, after: int) -> Expr:
        """``narrow.Rescale`` of one register."""
        hold = block.emitter.hold
        pairs, half = vector("int64", self.lanes // 2), 1 << (narrow.HALF_BITS - 1 + after)
        bits = constant(narrow.HALF_BITS, "int64", self.lanes // 2)
        x, multiplier = (hold(tirx.reinterpret(pairs, hold(v))) for v in (x << before, multiplier))
        # vpmuldq multiplies the lower halves of 64-bit lanes: no sign is really extended.
        even = ((x << bits) >> bits) * ((multiplier << bits) >> bits)
        odd = (x >> bits) * (multiplier >> bits)
        halves = [
            tirx.reinterpret(vector("int32", self.lanes), hold(p + constant(half, "int64", self.lanes // 2)))
            for p in (even, odd)
        ]
        order = [lane + 1 + part * self.lanes for lane in range(0, self.lanes, 2) for part in range(2)]
        upper = tirx.Shuffle(halves, [tirx.const(lane, "int32") for lane in order])
        return upper >> constant(after, "int32", self.lanes) if after else upper

    def short_products(self, a: Row, table: np.ndarray, index: Row) -> Row:
        # Of an entry the lower half alone counts, whatever the sign of a puts into its own upper half.
        entries = self.take(table & 0xFFFF, index)
        plain = super().short_products(a, table, index)

        def function(block: Block, start: int) -> Expr:
            if block.lanes != self.lanes:
                return plain.function(block, start)
            words = vector("int16", 2 * self.lanes)
            x, y = (tirx.reinterpret(words, block.at(row, start)) for row in (a, entries))
            name = "llvm.x86.avx512.pmaddw.d.512" if self.lanes == 16 else "llvm.x86.avx2.pmadd.wd"
            return tirx.call_llvm_pure_intrin(vector("int32", self.lanes), name, x, y)

        return Row(plain.size, "int32", function, plain.breaks)
