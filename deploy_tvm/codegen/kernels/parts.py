"""Operands of 16 bits for kernels that read bytes: ``x = 256 high + low + 128``, two vectors that share each weight.

A kernel for weights of 1 to 4 bits reads an eighth to a half of what one for bytes does, and unpacks each weight once
for all vectors of a tile; two byte products then cost less than one of 16 bits.  ``high`` is the upper byte as it is,
``low`` the lower one less 128, so that both are signed bytes for every x of 16 bits, a state's from -32768 to 32767
too; 128 times the sum of a row's weights is part of its bias.  Sums wrap around modulo 2**32, and ``check`` proves that
the whole fits.
"""

from __future__ import annotations

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, cast, constant, lanes_of, load
from deploy_tvm.codegen.kernels.base import LinearKernel, Operand, blocked, folded
from deploy_tvm.codegen.row_ops import RowOps
from deploy_tvm.codegen.rows import Row, combine


class Parts(LinearKernel):
    """``inner``, which reads bytes, on both bytes of an int16."""

    form, operand_dtype = "parts|", "int16"
    passes = 2

    def __init__(self, inner: LinearKernel) -> None:
        self.inner, self.lanes, self.units, self.group = inner, inner.lanes, inner.units, inner.group
        self.weights, self.looked_up = inner.weights, inner.looked_up
        self.roles = (*inner.roles, "whole_bias")
        self.tile_vectors = max(1, inner.tile_vectors // 2)

    def as_read(self, weight: np.ndarray) -> np.ndarray:
        return self.inner.as_read(weight)

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        """The bias is added once, behind both products."""
        whole = blocked(folded(bias, weight, 128), self.blocks(len(bias)), self.block_rows)
        return self.inner.pack(weight, np.zeros_like(bias)) | {"whole_bias": whole}

    def allocate(self, emitter: Emitter, vectors: int, length: int) -> Operand:
        return self.inner.allocate(emitter, 2 * vectors, length)

    def fill(self, emitter: Emitter, ops: RowOps, operand: Operand, vector: Expr, x: Row) -> None:
        for place, part in enumerate((_low, _high)):
            self.inner.fill(emitter, ops, operand, vector * 2 + place, combine("int8", part, x))

    def tile(
        self, emitter: Emitter, operand: Operand, vectors: list[Expr], packed: dict[str, tirx.Buffer], block: Expr
    ) -> list[list[Expr]]:
        both = [vector * 2 + place for vector in vectors for place in (0, 1)]
        found = self.inner.tile(emitter, operand, both, packed, block)
        bias = [load(packed["whole_bias"], self.lanes, block, u * self.lanes) for u in range(self.units)]
        return [
            [
                whole + low + (high << constant(8, "int32", self.lanes))
                for whole, low, high in zip(bias, *pair, strict=True)
            ]
            for pair in zip(found[::2], found[1::2], strict=True)
        ]


def _low(x: Expr) -> Expr:
    """The lower byte less 128, by turning its highest bit."""
    return cast(x ^ constant(128, "int16", lanes_of(x)), "int8")


def _high(x: Expr) -> Expr:
    """``(x - (low + 128)) / 256``: rounded downwards."""
    return cast(x >> constant(8, "int16", lanes_of(x)), "int8")
