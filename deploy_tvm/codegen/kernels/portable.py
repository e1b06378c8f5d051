"""Kernels in plain TIR: integers of 8, 4 and 16 bits on any CPU, and the float baseline.

The lanes run over rows of the matrix, so no horizontal sum is needed and the compiler needs no idiom to recognize.
"""

from __future__ import annotations

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, cast, constant, load
from deploy_tvm.codegen.kernels.base import LinearKernel, Operand, blocked
from deploy_tvm.codegen.kernels.words import WordKernel


class PortableKernel(LinearKernel):
    """8-bit weights by multiplication and addition."""

    operand_dtype = "int8"
    separable = True

    def __init__(self, lanes: int, units: int, tile_vectors: int = 2, group: int = 1) -> None:
        """``group`` columns are multiplied in one round of the loop."""
        self.lanes, self.units, self.group, self.tile_vectors = lanes, units, group, tile_vectors

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        blocks = self.blocks(weight.shape[0])
        whole = np.pad(weight, ((0, 0), (0, -weight.shape[1] % self.group)))
        return {
            "weight": np.ascontiguousarray(blocked(whole, blocks, self.block_rows).transpose(0, 2, 1)),
            "bias": blocked(bias, blocks, self.block_rows),
        }

    def tile(
        self, emitter: Emitter, operand: Operand, vectors: list[Expr], packed: dict[str, tirx.Buffer], block: Expr
    ) -> list[list[Expr]]:
        lanes, units = self.lanes, self.units
        acc = []
        for _ in vectors:
            acc.append([emitter.alloc((lanes,), self.accumulator, "acc") for _ in range(units)])
            for u in range(units):
                emitter.store(acc[-1][u], load(packed["bias"], lanes, block, u * lanes), 0)
        with emitter.loop(packed["weight"].shape[1] // self.group, "k") as group:
            for g in range(self.group):
                k = group * self.group + g
                weights = [self.weight(emitter, packed["weight"], block, k, u) for u in range(units)]
                for v, index in enumerate(vectors):
                    x = emitter.bind(cast(load(operand.buffer, 1, index, k), self.accumulator, lanes))
                    for u in range(units):
                        emitter.store(acc[v][u], load(acc[v][u], lanes, 0) + x * weights[u], 0)
        return [[load(buffer, lanes, 0) for buffer in row] for row in acc]

    def weight(self, emitter: Emitter, packed: tirx.Buffer, block: Expr, k: Expr, unit: int) -> Expr:
        """The weights of one register of rows at column ``k``."""
        return emitter.bind(cast(load(packed, self.lanes, block, k, unit * self.lanes), self.accumulator))


class PortableKernel4(PortableKernel):
    """4-bit weights, two to a byte: the low nibbles are the first half of a block's rows."""

    weights = (-8, 7)
    separable = False

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        packed = super().pack(weight, bias)
        low, high = np.split(packed["weight"], 2, axis=2)
        packed["weight"] = np.ascontiguousarray((low & 15) | (high << 4)).astype(np.int8)
        return packed

    def weight(self, emitter: Emitter, packed: tirx.Buffer, block: Expr, k: Expr, unit: int) -> Expr:
        half = self.units // 2
        both = load(packed, self.lanes, block, k, unit % half * self.lanes)
        four = constant(4, "int8", self.lanes)
        # Arithmetic shifts extend the sign of a nibble; a low one is moved to the top of its byte first.
        nibble = both >> four if unit >= half else (both << four) >> four
        return emitter.bind(cast(nibble, self.accumulator))


class WideKernel(WordKernel, PortableKernel):
    """Weights and operands of up to 16 bits by multiplication and addition: products stay below 2**30."""


class FloatKernel(PortableKernel):
    """float32 weights and operands."""

    operand_dtype = accumulator = "float32"

    def as_read(self, weight: np.ndarray) -> np.ndarray:
        return weight
