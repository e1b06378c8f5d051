"""x86 kernels for any codebook of up to 16 integers: ``vpshufb`` looks every weight up, then they are as 8-bit ones.

A byte holds the places of the weights of two rows in the table.  Entries beyond a byte (beyond +-127 where signs are
transferred) are the sum of two: then there are two tables, and two multiplications into the same accumulator.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, constant, load, vector
from deploy_tvm.codegen.kernels.base import LinearKernel, blocked, folded, grouped
from deploy_tvm.codegen.kernels.x86_avx2 import Avx2Kernel8
from deploy_tvm.codegen.kernels.x86_vnni import Vnni8

ENTRIES = 16


def tables(values: np.ndarray, limit: int) -> np.ndarray:
    """int8 [1 or 2, 16]: tables whose sum holds ``values``, ascending, in its first places; entries within +-limit."""
    padded = np.zeros(ENTRIES, np.int16)
    padded[: len(values)] = values
    first = np.clip(padded, -limit, limit)
    parts = [first] if np.array_equal(first, padded) else [first, padded - first]
    return np.stack(parts).astype(np.int8)


class _Codebook(LinearKernel):
    """What is added to a kernel of 8-bit weights that multiplies the sum of ``registers``."""

    roles = ("weight", "bias", "table")
    limit = 127
    folds = 0  # what the bias takes from the sum of a row's weights

    def proved_for(self, weight: np.ndarray) -> bool:
        return len(np.unique(weight)) <= ENTRIES and int(np.abs(weight.astype(np.int32)).max()) <= 2 * self.limit

    def as_read(self, weight: np.ndarray) -> np.ndarray:
        return weight

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        blocks, half = self.blocks(weight.shape[0]), self.units // 2
        values, places = np.unique(weight, return_inverse=True)
        rows = blocked(places.reshape(weight.shape).astype(np.uint8), blocks, self.block_rows)
        places = grouped(rows.reshape(-1, weight.shape[1]), self.group)
        order = places.reshape(blocks, half, 2, self.lanes, -1, 4).transpose(0, 4, 1, 2, 3, 5)
        bytes_ = order[:, :, :, 0] | order[:, :, :, 1] << 4
        table = tables(values, self.limit)
        return {
            "weight": np.ascontiguousarray(bytes_).reshape(blocks, bytes_.shape[1], -1),
            "bias": blocked(folded(bias, weight, self.folds), blocks, self.block_rows),
            # vpshufb looks up within each 16 bytes of a register.
            "table": np.tile(table, (1, 4 * self.lanes // ENTRIES)),
        }

    def registers(self, emitter: Emitter, packed: dict[str, tirx.Buffer], block: Expr, k: Expr) -> list[list[Expr]]:
        """For each unit the registers whose sum are its weights at the four columns from ``4 k`` on."""
        width = 4 * self.lanes
        looked_up = [load(packed["table"], width, part, 0) for part in range(int(packed["table"].shape[0]))]
        mask, four = constant(15, "uint8", width), constant(4, "uint16", width // 2)
        result = []
        for pair in range(self.units // 2):
            both = emitter.bind(load(packed["weight"], width, block, k, pair * width))
            upper = tirx.reinterpret(
                vector("uint8", width), tirx.reinterpret(vector("uint16", width // 2), both) >> four
            )
            for bytes_ in (both, upper):
                place = emitter.bind(tirx.reinterpret(vector("int8", width), bytes_ & mask))
                result.append([emitter.bind(self._shuffle(table, place)) for table in looked_up])
        return result

    def _shuffle(self, table: Expr, place: Expr) -> Expr:
        name = "llvm.x86.avx512.pshuf.b.512" if self.lanes == 16 else "llvm.x86.avx2.pshuf.b"
        return tirx.call_llvm_pure_intrin(vector("int8", 4 * self.lanes), name, table, place)


class VnniCodebook(_Codebook, Vnni8):
    """With ``vpdpbusd``: the activations are ``x + 128``."""

    folds = -128

    def __init__(self, lanes: int, **sizes: Any) -> None:
        super().__init__(lanes, **sizes)
        self.tile_vectors = 4 if lanes == 16 else 2


class Avx2Codebook(_Codebook, Avx2Kernel8):
    """By transfer of signs."""
