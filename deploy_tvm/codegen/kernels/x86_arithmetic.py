"""Requantization and short products in x86 registers: 32-bit lanes throughout, as ``narrow`` proves they suffice.

These replace compositions of ``irnn.arithmetic.fixed_point``, integer for integer
(``tests/deploy_tvm/codegen/test_kernels.py``).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import tirx

from deploy_tvm.codegen import narrow
from deploy_tvm.codegen.emitter import Expr, cast, constant, vector
from deploy_tvm.codegen.kernels.x86_tables import PermutingOps
from deploy_tvm.codegen.row_ops import Term
from deploy_tvm.codegen.rows import Block, Row, narrowed


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
        pairs = vector("int64", self.lanes // 2)
        bits = constant(narrow.HALF_BITS, "int64", self.lanes // 2)
        half = constant(1 << (narrow.HALF_BITS - 1 + after), "int64", self.lanes // 2)
        numbers = [hold(v) for v in (x << before, multiplier)]

        def product(part: Callable[[Expr], Expr]) -> Expr:
            # vpmuldq multiplies the lower halves of 64-bit lanes: no sign is really extended.  LLVM takes it for this
            # form alone where a factor comes from outside of a loop; for one shifted down it would multiply all bits.
            a, b = (hold(tirx.reinterpret(pairs, part(v))) for v in numbers)
            return tirx.reinterpret(
                vector("int32", self.lanes), hold(((a << bits) >> bits) * ((b << bits) >> bits) + half)
            )

        halves = [product(lambda v: v), product(self._odd)]
        order = [lane + 1 + part * self.lanes for lane in range(0, self.lanes, 2) for part in range(2)]
        upper = tirx.Shuffle(halves, [tirx.const(lane, "int32") for lane in order])
        return upper >> constant(after, "int32", self.lanes) if after else upper

    def _odd(self, x: Expr) -> Expr:
        """The odd lanes, each in the even one before it, too."""
        return tirx.Shuffle([x], [tirx.const(lane | 1, "int32") for lane in range(self.lanes)])

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
