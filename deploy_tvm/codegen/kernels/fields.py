"""Weights of a few bits as unsigned fields of bytes: what the kernels for 4, 2 and 1 bits share.

A weight is stored as the field ``f >= 0`` with
``w = step f - offset`` and the activations stay signed: ``w x`` summed is ``step sum(f x) - offset sum(x)``, whose
second term is the same for every row (:meth:`FieldKernel.correction`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, cast, constant, load
from deploy_tvm.codegen.kernels.base import LinearKernel, Operand
from deploy_tvm.codegen.row_ops import RowOps
from deploy_tvm.codegen.rows import Row, number


@dataclass(frozen=True)
class Field:
    """``w = step f - offset`` for f from 0 to ``2**bits - 1``."""

    bits: int
    step: int
    offset: int

    @property
    def weights(self) -> tuple[int, int]:
        """The smallest and the largest weight."""
        return -self.offset, self.step * self.largest - self.offset

    @property
    def largest(self) -> int:
        """The largest field."""
        return (1 << self.bits) - 1

    @property
    def in_a_byte(self) -> int:
        return 8 // self.bits

    def of(self, weight: np.ndarray) -> np.ndarray:
        """The fields of weights, uint8."""
        return ((weight.astype(np.int16) + self.offset) // self.step).astype(np.uint8)

    def joined(self, fields: np.ndarray, axis: int) -> np.ndarray:
        """Bytes of the fields along ``axis``, the first in the lowest bits."""
        fields = np.moveaxis(fields, axis, 0)
        places = (self.bits * np.arange(self.in_a_byte)).astype(np.uint8)
        return np.bitwise_or.reduce(fields << places.reshape(-1, *[1] * (fields.ndim - 1)), axis=0)


NIBBLE = Field(bits=4, step=1, offset=8)
CRUMB = Field(bits=2, step=1, offset=2)
SIGN = Field(bits=1, step=2, offset=1)


class FieldKernel(LinearKernel):
    """A kernel of weights that are fields of bytes, on signed activations."""

    operand_dtype = "int8"

    def __init__(self, field: Field) -> None:
        self.field, self.weights = field, field.weights

    def proved_for(self, weight: np.ndarray) -> bool:
        # A sign has no zero between its two ends.
        return super().proved_for(weight) and (self.field.step == 1 or bool(np.all(weight)))

    def corrects(self) -> bool:
        return True

    def correction(self, ops: RowOps, x: Row) -> Row:
        return ops.row_sum(ops.to(x, "int32") * number(-self.field.offset, "int32"))

    def apart(self, sums: list[Expr], nested: int) -> list[Expr]:
        """The products of each row, up to the correction, where ``nested`` fields share what is multiplied.

        ``sums`` are those of its lowest field, of its two lowest ones and so on, then of the next:
        ``p_j = sum over i <= j of 2^(bits i) f_i x``, so that ``f_j x = (p_j - p_(j-1)) >> (bits j)`` exactly.
        """
        results = []
        for u, value in enumerate(sums):
            j = u % nested
            if j:
                value = (value - sums[u - 1]) >> constant(self.field.bits * j, "int32", self.lanes)
            step = constant(self.field.step, "int32", self.lanes)
            results.append(value * step if self.field.step > 1 else value)
        return results

    def corrected(
        self,
        emitter: Emitter,
        operand: Operand,
        index: Expr,
        packed: dict[str, tirx.Buffer],
        block: Expr,
        values: list[Expr],
    ) -> list[Expr]:
        """The units' products with vector number ``index``: with its correction, and with the rows' bias."""
        correction = cast(load(operand.correction, 1, index), "int32", self.lanes)
        bias = [load(packed["bias"], self.lanes, block, u * self.lanes) for u in range(self.units)]
        return [emitter.bind(value + correction + b) for value, b in zip(values, bias, strict=True)]

    def finished(
        self,
        emitter: Emitter,
        operand: Operand,
        index: Expr,
        packed: dict[str, tirx.Buffer],
        block: Expr,
        sums: list[Expr],
    ) -> list[Expr]:
        return self.corrected(emitter, operand, index, packed, block, self.apart(sums, 1))
