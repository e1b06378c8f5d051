"""x86 kernels for any codebook of up to 16 integers: ``vpshufb`` looks every weight up, then they are as 8-bit ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, constant, load, vector
from deploy_tvm.codegen.kernels.base import blocked, folded, grouped
from deploy_tvm.codegen.kernels.codebook import ENTRIES, CodebookKernel
from deploy_tvm.codegen.kernels.x86_avx2 import Avx2Kernel8
from deploy_tvm.codegen.kernels.x86_vnni import Vnni8


class _Shuffled(CodebookKernel):
    """Looked up by ``vpshufb``, within each 16 bytes of a register."""

    folds = 0  # what the bias takes from the sum of a row's weights

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        blocks = self.blocks(weight.shape[0])
        table, pairs = self.looked_up_in(weight)
        order = grouped(pairs, self.group).reshape(blocks, self.units // 2, self.lanes, -1, 4).transpose(0, 3, 1, 2, 4)
        return {
            "weight": np.ascontiguousarray(order).reshape(blocks, order.shape[1], -1),
            "bias": blocked(folded(bias, weight, self.folds), blocks, self.block_rows),
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


class VnniCodebook(_Shuffled, Vnni8):
    """With ``vpdpbusd``: the activations are ``x + 128``."""

    folds = -128

    def __init__(self, lanes: int, **sizes: Any) -> None:
        super().__init__(lanes, **sizes)
        self.tile_vectors = 4 if lanes == 16 else 2


class Avx2Codebook(_Shuffled, Avx2Kernel8):
    """By transfer of signs."""
