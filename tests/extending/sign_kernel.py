"""Weights of -1 and 1 on any CPU, eight to a byte: bit ``u`` is the sign in register ``u`` of a block's rows."""

from __future__ import annotations

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, cast, constant, load
from deploy_tvm.codegen.kernels.portable import PortableKernel


class SignKernel(PortableKernel):
    """Products and sums are those of 8 bits, in int32: exact for any activations."""

    weights = (-1, 1)

    def __init__(self) -> None:
        super().__init__(lanes=4, units=8)

    def proved_for(self, weight: np.ndarray) -> bool:
        """A bit has no third value."""
        return bool(np.all(np.abs(weight) == 1))

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        """Signs uint8 [blocks, columns, lanes], and the bias as it is for 8 bits."""
        packed = super().pack(weight, bias)
        positive = np.stack(np.split(packed["weight"] > 0, self.units, axis=2))
        packed["weight"] = np.packbits(positive, axis=0, bitorder="little")[0]
        return packed

    def weight(self, emitter: Emitter, packed: tirx.Buffer, block: Expr, k: Expr, unit: int) -> Expr:
        """2 bit - 1 of every lane."""
        bit = (load(packed, self.lanes, block, k, 0) >> constant(unit, "uint8", self.lanes)) & constant(
            1, "uint8", self.lanes
        )
        return emitter.bind(cast(bit + bit, self.accumulator) - constant(1, self.accumulator, self.lanes))
