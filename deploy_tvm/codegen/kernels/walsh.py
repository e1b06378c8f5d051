"""Products with a Hadamard matrix by additions: ``W = diag(s) H`` with signs s and H Sylvester's of a size ``2**k``.

``H[r, c] = (-1)^popcount(r & c)``, so that ``H x`` is made in k stages, the fast Walsh-Hadamard transform: the stage of
bit j replaces the elements a and b whose places differ in that bit alone by ``a + b`` and ``a - b``.  That is
``n log2(n)`` additions in place of ``n**2`` products, and of the matrix only n signs are read.  Sums are those of the
product in another order, modulo 2**32; ``check`` proves that the whole fits.  HadamRNN's recurrent matrix is one.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, as_index, cast, load
from deploy_tvm.codegen.kernels.base import LinearKernel, Operand
from irnn.program import Tensor

# Registers of every set fill whole blocks from here on; above, the matrix itself would be large to compare with.
SMALLEST, LARGEST = 16, 2048


@cache
def sylvester(size: int) -> np.ndarray:
    """int8 ``[size, size]`` of -1 and 1, for a power of two: doubling of 1."""
    matrix = np.ones((1, 1), np.int8)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def is_walsh(weight: Tensor) -> bool:
    """Whether the matrix is Sylvester's, each row with a sign of its own."""
    size, data = len(weight.data), weight.data
    if weight.encoding != "binary" or data.shape != (size, size) or size & (size - 1):
        return False
    # The first column of Sylvester's matrix is 1.
    return SMALLEST <= size <= LARGEST and np.array_equal(data * data[:, :1], sylvester(size))


class WalshKernel(LinearKernel):
    """The transform of one vector in a row of memory; one block has all rows."""

    tile_vectors = 1

    def __init__(self, lanes: int, size: int, operand_dtype: str) -> None:
        self.lanes, self.size, self.operand_dtype = lanes, size, operand_dtype
        self.units, self.group, self.form = size // lanes, lanes, f"walsh {operand_dtype}|"

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        """Signs as 0 or -1: ``-x = (x ^ -1) + 1``, whose 1 is added to the bias."""
        signs = weight[:, 0].astype(np.int32)
        negative = -(signs < 0).astype(np.int32)
        return {"weight": negative, "bias": (bias.astype(np.int64) - negative).astype(np.uint32).view(np.int32)}

    def tile(
        self, emitter: Emitter, operand: Operand, vectors: list[Expr], packed: dict[str, tirx.Buffer], block: Expr
    ) -> list[list[Expr]]:
        return [self._transformed(emitter, operand.buffer, vector, packed) for vector in vectors]

    def _transformed(
        self, emitter: Emitter, x: tirx.Buffer, vector: Expr, packed: dict[str, tirx.Buffer]
    ) -> list[Expr]:
        lanes, row = self.lanes, emitter.alloc((self.size,), self.accumulator, "walsh")
        with emitter.loop(self.units, "u") as u:
            register = emitter.bind(cast(load(x, lanes, vector, u * lanes), self.accumulator))
            distance = 1
            while distance < lanes:
                register = emitter.bind(self._within(emitter, register, distance))
                distance *= 2
            emitter.store(row, register, u * lanes)
        distance = 1  # in registers
        while distance < self.units:
            stages = 2 if 4 * distance <= self.units else 1
            self._between(emitter, row, distance, stages)
            distance <<= stages
        return [
            (load(row, lanes, u * lanes) ^ load(packed["weight"], lanes, u * lanes))
            + load(packed["bias"], lanes, u * lanes)
            for u in range(self.units)
        ]

    def _within(self, emitter: Emitter, x: Expr, distance: int) -> Expr:
        """One stage among the elements of a register."""
        lanes = self.lanes
        other = emitter.bind(tirx.Shuffle([x], _indices(lane ^ distance for lane in range(lanes))))
        sums, differences = emitter.bind(x + other), emitter.bind(other - x)
        places = (lane + lanes if lane & distance else lane for lane in range(lanes))
        return tirx.Shuffle([sums, differences], _indices(places))

    def _between(self, emitter: Emitter, row: tirx.Buffer, distance: int, stages: int) -> None:
        """One or two stages among registers, ``distance`` and twice as far from each other."""
        lanes, group = self.lanes, distance << stages
        with emitter.loop(self.units // group, "group") as j, emitter.loop(distance, "member") as member:
            first = emitter.bind((j * group + member) * lanes, "first")
            places = [first + as_index(k * distance * lanes) for k in range(1 << stages)]
            values = [emitter.bind(load(row, lanes, place)) for place in places]
            for stage in range(stages):
                bit = 1 << stage
                values = [
                    emitter.bind(values[k ^ bit] - value if k & bit else value + values[k | bit])
                    for k, value in enumerate(values)
                ]
            for place, value in zip(places, values, strict=True):
                emitter.store(row, value, place)


def _indices(places: Iterable[int]) -> list[Expr]:
    return [tirx.const(place, "int32") for place in places]
