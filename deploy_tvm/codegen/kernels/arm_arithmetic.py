"""Requantization and piecewise-linear functions in NEON registers: 32-bit lanes, as ``narrow`` proves they suffice.

These replace compositions of ``irnn.arithmetic.fixed_point``, integer for integer
(``tests/deploy_tvm/codegen/test_arm_kernels.py``).
"""

from __future__ import annotations

from tvm import tirx

from deploy_tvm.codegen import narrow
from deploy_tvm.codegen.emitter import Expr, cast, constant, lanes_of
from deploy_tvm.codegen.kernels.arm_tables import INT16_MAX, INT16_MIN, LANES, TableOps, joined, pieces
from deploy_tvm.codegen.row_ops import Term
from deploy_tvm.codegen.rows import Block, Row


class NeonOps(TableOps):
    """``requantize`` by ``sqdmulh`` and ``srshl``: two instructions for four elements of a term.

    A rounding shift, ``(x + 2**(n-1)) >> n``, is the very rule of ``irnn.arithmetic.fixed_point.rescale``.
    """

    def requantize(self, terms: list[Term], zero_point: int, low: int, high: int, dtype: str) -> Row:
        plain = super().requantize(terms, zero_point, low, high, dtype)
        forms = [narrow.doubled(term.multiplier, term.shift, term.low, term.high) for term in terms]
        proved = narrow.added(forms, zero_point)
        if proved is None:
            return plain
        found, _, _ = proved
        factors = [
            (
                term.x,
                term.constant("multiplier", term.multiplier),
                term.constant("before", form.before) if form.before.any() else None,
                term.constant("moved", -form.after),
            )
            for term, form in zip(terms, found, strict=True)
        ]

        def function(block: Block, start: int) -> Expr:
            if block.lanes != LANES:
                return plain.function(block, start)
            total: list[Expr] = []
            for x, multiplier, before, moved in factors:
                value = cast(block.at(x, start), "int32", LANES)
                if before is not None:
                    value = value << cast(block.at(before, start), "int32", LANES)
                parts = self._rescaled(value, *(cast(block.at(r, start), "int32", LANES) for r in (multiplier, moved)))
                total = [a + b for a, b in zip(total, parts, strict=True)] if total else parts
            if zero_point:
                total = [t + constant(zero_point, "int32", 4) for t in total]
            return self._narrowed(total, low, high, dtype)

        return Row(plain.size, dtype, function, plain.breaks)

    def _rescaled(self, x: Expr, multiplier: Expr, moved: Expr) -> list[Expr]:
        """``narrow.Doubled`` of eight elements, four at a time; ``moved`` is minus the shift."""
        name = self.instructions
        quarters = zip(*(pieces(v, 4) for v in (x, multiplier, moved)), strict=True)
        return [
            tirx.call_llvm_pure_intrin(
                "int32x4", name.shift_rounding, tirx.call_llvm_pure_intrin("int32x4", name.double_high, a, b), c
            )
            for a, b, c in quarters
        ]

    def _narrowed(self, quarters: list[Expr], low: int, high: int, dtype: str) -> Expr:
        """Numbers in int32, clamped to ``low`` .. ``high``, which fit 16 bits where ``dtype`` does."""
        if dtype == "int32":
            wide = joined(quarters)
            return tirx.Min(tirx.Max(wide, constant(low, dtype, LANES)), constant(high, dtype, LANES))
        name = self.instructions.narrow_saturating
        value = joined([tirx.call_llvm_pure_intrin("int16x4", name, q) for q in quarters])
        if (low, high) != (INT16_MIN, INT16_MAX):
            value = tirx.Min(tirx.Max(value, constant(low, "int16", lanes_of(value))), constant(high, "int16", LANES))
        return cast(value, dtype)
