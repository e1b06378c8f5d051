"""What a matrix-vector kernel is: packing at build time, and the statements that multiply one block of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, constant, lanes_of, load
from deploy_tvm.codegen.row_ops import RowOps
from deploy_tvm.codegen.rows import Block, Row, first_lanes, segments


@dataclass
class Operand:
    """The right-hand side of a product, in the form in which a kernel reads it.

    ``buffer`` is [vectors, padded length]; ``correction`` is int32 [vectors] and is added to every row of the product
    (None: nothing to add).  ``plain`` is what ``buffer`` is made of, where a kernel reads elements repeated or without
    their signs.
    """

    buffer: tirx.Buffer
    correction: tirx.Buffer | None
    plain: tirx.Buffer | None = None


@dataclass(frozen=True)
class Place:
    """Where products go: int32 [rows, columns], a vector's in a row, from this row and column on."""

    buffer: tirx.Buffer
    row: Expr
    column: Expr


# (group of columns, byte in it) -> where that lies.
Address = Callable[[Expr, Expr], Expr]


@dataclass(frozen=True)
class Held:
    """A unit that was asked for: whether it is there, and how many vectors it takes at once."""

    there: Expr
    vectors: Expr


class Tiles(Protocol):
    """A unit of the CPU that multiplies a block of rows by up to ``most`` vectors at once, to the same integers.

    Fewer than ``least`` are multiplied faster without it.
    """

    least: int
    most: int

    def begin(self, emitter: Emitter, packed: dict[str, tirx.Buffer], count: Expr) -> Held:
        """Take hold of the unit for a product with ``count`` vectors."""

    def end(self, emitter: Emitter) -> None:
        """Let go of it."""

    def weights(self, emitter: Emitter, kernel: LinearKernel, packed: dict[str, tirx.Buffer], block: Expr) -> Address:
        """One block's weights as the unit reads them."""

    def multiply(
        self,
        emitter: Emitter,
        kernel: LinearKernel,
        operand: Operand,
        first: Expr,
        vectors: Expr,
        packed: dict[str, tirx.Buffer],
        block: Expr,
        weights: Address,
        target: Place,
    ) -> None:
        """The products of the ``vectors`` vectors (as many as it was held for) from ``first`` on with the block."""


class LinearKernel(ABC):
    """``weight x + bias`` for weights in the range ``weights`` on one instruction set.

    The rows of the weight matrix are cut into blocks of ``block_rows``: ``units`` registers of ``lanes`` accumulators.
    ``group`` elements of x are consumed at a time.
    """

    lanes: int
    units: int
    group: int
    operand_dtype: str
    accumulator: str = "int32"
    # Before the names of packed constants: one matrix may be multiplied in several forms.
    form: str = ""
    # What :meth:`pack` gives.
    roles: tuple[str, ...] = ("weight", "bias")
    # Smallest and largest weight with which no intermediate saturates or wraps around, whatever the activations are.
    weights: tuple[int, int] = (-128, 127)
    # Vectors multiplied at once when a whole sequence is at hand: bounded by the registers that hold accumulators.
    tile_vectors: int = 4
    # Whether each register of rows has weights of its own: a block may be multiplied without its last registers.
    separable: bool = False
    # Products that one look-up of a register stands for, in kernels that do not multiply.
    looked_up: int = 0
    # Multiplications by a weight for each product with it.
    passes: int = 1
    # What multiplies a block by many vectors at once, where the CPU has a unit for it.
    tiles: Tiles | None = None

    @property
    def block_rows(self) -> int:
        return self.units * self.lanes

    def blocks(self, rows: int) -> int:
        """Number of blocks that hold ``rows`` rows."""
        return -(-rows // self.block_rows)

    def of_last(self, rows: int, finished: int) -> LinearKernel:
        """What multiplies the last block of ``rows`` rows: this kernel, or it without the registers that hold no row.

        Both read the same weights.  finished: how many products are finished at once; a block is a multiple of them.
        """
        step = max(1, finished // self.lanes)
        needed = -(-((rows - 1) % self.block_rows + 1) // (self.lanes * step)) * step
        if not self.separable or needed >= self.units:
            return self
        short = copy(self)
        short.units = needed
        return short

    def of(self, weight: np.ndarray) -> LinearKernel:
        """What multiplies these weights, for which the kernel is proved: itself, or without what they rule out."""
        return self

    def proved_for(self, weight: np.ndarray) -> bool:
        """Whether the kernel is exact for these integers."""
        low, high = self.weights
        return low <= int(weight.min()) and int(weight.max()) <= high

    def as_read(self, weight: np.ndarray) -> np.ndarray:
        """The weights in the dtype that :meth:`pack` takes: bytes, also where a codebook's are int16 in memory."""
        return weight.astype(np.int8, copy=False)

    def padded(self, length: int) -> int:
        """Length of an operand in memory: whole groups, and room for the last register that fills it."""
        return -(-length // 64) * 64

    @abstractmethod
    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        """``roles``, as :meth:`tile` reads them, of weights [rows, columns] and a bias int32 [rows]."""

    @abstractmethod
    def tile(
        self,
        emitter: Emitter,
        operand: Operand,
        vectors: list[Expr],
        packed: dict[str, tirx.Buffer],
        block: Expr,
    ) -> list[list[Expr]]:
        """Emit the products of one block of rows with some vectors: [vector][unit] registers of accumulators."""

    def finished(
        self,
        emitter: Emitter,
        operand: Operand,
        index: Expr,
        packed: dict[str, tirx.Buffer],
        block: Expr,
        sums: list[Expr],
    ) -> list[Expr]:
        """The units' products with vector number ``index``, of the sums of stored weights times stored elements."""
        bias = [load(packed["bias"], self.lanes, block, u * self.lanes) for u in range(self.units)]
        return [value + b for value, b in zip(sums, bias, strict=True)]

    def operand_element(self, x: Row) -> Row:
        """What is stored in the operand for an element of the activations."""
        return x

    def corrects(self) -> bool:
        """Whether the product lacks a term that depends on the sum of x."""
        return False

    def correction(self, ops: RowOps, x: Row) -> Row:
        """That term, one number (only where :meth:`corrects`)."""
        raise NotImplementedError

    def allocate(self, emitter: Emitter, vectors: int, length: int) -> Operand:
        """Memory for the operands of ``vectors`` vectors of ``length`` elements."""
        buffer = emitter.alloc((vectors, self.padded(length)), self.operand_dtype, "operand")
        return Operand(buffer, emitter.alloc((vectors,), "int32", "correction") if self.corrects() else None)

    def fill(self, emitter: Emitter, ops: RowOps, operand: Operand, vector: Expr, x: Row) -> None:
        """Store ``x`` as operand number ``vector``, followed by zeros."""
        element, lanes = self.operand_element(x), ops.lanes
        # The columns that fill up the last group are multiplied too.
        for start in range(x.length // lanes * lanes, -(-x.length // self.group) * self.group, lanes):
            emitter.store(operand.buffer, constant(0, self.operand_dtype, lanes), vector, start)
        for start, stop in segments(element):
            whole, rest = divmod(stop - start, lanes)
            if whole:
                with emitter.loop(whole) as i:
                    value = Block(emitter, i * lanes, lanes).at(element, start)
                    emitter.store(operand.buffer, value, vector, i * lanes + start)
            if rest and start + whole * lanes + lanes <= self.padded(x.length):
                value = Block(emitter, whole * lanes, lanes).at(element, start)
                emitter.store(operand.buffer, first_lanes(value, rest), vector, start + whole * lanes)
            elif rest:
                # Behind a joint a whole register would not fit; zeros are there already.
                with emitter.loop(rest) as i:
                    value = Block(emitter, whole * lanes + i, 1).at(element, start)
                    emitter.store(operand.buffer, value, vector, i + (start + whole * lanes))
        if operand.correction is not None:
            stored = Row(x.size, self.operand_dtype, self._read(operand, vector))
            value = self.correction(ops, stored).function(Block(emitter, 0, 1), 0)
            emitter.store(operand.correction, value, vector)

    @staticmethod
    def _read(operand: Operand, vector: Expr) -> Callable[[Block, int], Expr]:
        return lambda block, start: load(operand.buffer, block.lanes, vector, block.index + start)


def accumulators(emitter: Emitter, start: list[list[Expr]]) -> list[list[tirx.Buffer]]:
    """One buffer a register (so that the compiler keeps each in one), holding its first value."""
    buffers = []
    for row in start:
        buffers.append([emitter.alloc((lanes_of(value),), "int32", "acc") for value in row])
        for buffer, value in zip(buffers[-1], row, strict=True):
            emitter.store(buffer, value, 0)
    return buffers


def blocked(array: np.ndarray, blocks: int, block_rows: int) -> np.ndarray:
    """Rows padded with zeros to whole blocks: [rows, ...] -> [blocks, block_rows, ...]."""
    padded = np.zeros((blocks * block_rows, *array.shape[1:]), array.dtype)
    padded[: array.shape[0]] = array
    return padded.reshape(blocks, block_rows, *array.shape[1:])


def grouped(weight: np.ndarray, group: int) -> np.ndarray:
    """Columns padded with zeros to whole groups: [rows, columns] -> [rows, groups, group]."""
    groups = -(-weight.shape[1] // group)
    padded = np.zeros((weight.shape[0], groups * group), weight.dtype)
    padded[:, : weight.shape[1]] = weight
    return padded.reshape(weight.shape[0], groups, group)


def folded(bias: np.ndarray, weight: np.ndarray, factor: int) -> np.ndarray:
    """``bias + factor * (sum of the row's weights)``: int32 [rows].

    Products are sums modulo 2**32, so that one which leaves int32 here still comes out right.
    """
    shifted = bias.astype(np.int64) + factor * weight.sum(1, dtype=np.int64)
    return (shifted & 0xFFFFFFFF).astype(np.uint32).view(np.int32)
