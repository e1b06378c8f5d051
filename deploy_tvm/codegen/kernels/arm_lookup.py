"""ARM kernels that look sums up: ``tbl`` stands for the products of three or four weights of one row at once.

The weights of a row at neighbouring columns are the digits of an index; for each such group of columns, a table holds
the sum of products that belongs to every index.  Tables are made of the activations, once a vector, and serve all rows
(Wei et al., "T-MAC: CPU Renaissance via Table Lookup for Low-Bit LLM Deployment on Edge", 2024, section 3; there the
entries are rounded to 8 bits, here nothing is).

A sum ``s`` of up to 512 in magnitude is ``32 high + low``, both bytes: two look-ups.  So many groups are added up in
bytes as no sum can leave them, ``chunk``; then both join accumulators of 16 bits, which hold the sums of
``MAX_GROUPS`` groups.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, cast, constant, constant_vector, load, vector
from deploy_tvm.codegen.kernels.arm_tables import Instructions, joined, pieces
from deploy_tvm.codegen.kernels.base import LinearKernel, Operand, blocked, grouped
from deploy_tvm.codegen.row_ops import RowOps
from deploy_tvm.codegen.rows import Row

WIDTH, LANES = 16, 8
LOW_BITS = 5
LOW = (1 << LOW_BITS) - 1
MAX_GROUPS = ((1 << 15) - 1) // 16


class LookUp(LinearKernel):
    """Weights that are one of ``values``; a table of 16 or 32 entries for each ``columns`` columns.

    Indices of 4 bits lie two to a byte, for two times 16 rows.  A block is ``loads`` registers of bytes.
    """

    lanes, operand_dtype, tile_vectors = LANES, "int8", 1

    def __init__(self, instructions: Instructions, values: tuple[int, ...], columns: int, loads: int) -> None:
        self.instructions, self.values, self.group, self.loads = instructions, np.array(values), columns, loads
        self.weights = (values[0], values[-1])
        # [entry, column]: the first column is the lowest digit.
        self.digits = np.array([digits[::-1] for digits in product(values, repeat=columns)])
        self.registers = -(-len(self.digits) // WIDTH)
        self.in_a_byte = 2 // self.registers
        self.units = loads * self.in_a_byte * WIDTH // LANES
        ends = [int((np.abs(self.digits).sum(1)).max()) * 128 >> LOW_BITS]
        self.chunk = min(255 // LOW, 127 // ends[0])
        # One entry of a table stands for so many products, and takes two look-ups.
        self.looked_up = columns * WIDTH // 2

    def proved_for(self, weight: np.ndarray) -> bool:
        return bool(np.isin(weight, self.values).all()) and weight.shape[1] <= MAX_GROUPS * self.group

    def pack(self, weight: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        blocks = self.blocks(weight.shape[0])
        digits = grouped(np.searchsorted(self.values, weight).astype(np.uint8), self.group)
        places = (len(self.values) ** np.arange(self.group)).astype(np.uint8)
        index = blocked((digits * places).sum(2, dtype=np.uint8), blocks, self.block_rows)
        rows = index.reshape(blocks, self.loads, self.in_a_byte, WIDTH, -1)
        bytes_ = rows[:, :, 0] | rows[:, :, 1] << 4 if self.in_a_byte == 2 else rows[:, :, 0]
        order = np.ascontiguousarray(bytes_.transpose(0, 3, 1, 2))
        return {
            "weight": order.reshape(*order.shape[:2], -1),
            "bias": blocked(bias, blocks, self.block_rows),
        }

    def allocate(self, emitter: Emitter, vectors: int, length: int) -> Operand:
        """Tables [vectors, groups, low and high, entries]."""
        plain = super().allocate(emitter, vectors, length)
        tables = (vectors, -(-length // self.group), 2, self.registers * WIDTH)
        return Operand(emitter.alloc(tables, "int8", "tables"), None, plain.buffer)

    def fill(self, emitter: Emitter, ops: RowOps, operand: Operand, vector: Expr, x: Row) -> None:
        super().fill(emitter, ops, Operand(operand.plain, None), vector, x)
        entries = np.zeros((self.registers * WIDTH, self.group), np.int64)
        entries[: len(self.digits)] = self.digits
        with emitter.loop(operand.buffer.shape[1]) as group:
            columns = [
                emitter.bind(cast(load(operand.plain, 1, vector, group * self.group + c), "int16", LANES))
                for c in range(self.group)
            ]
            for first in range(0, len(entries), WIDTH):
                halves = [self._sums(emitter, columns, entries[n : n + LANES]) for n in (first, first + LANES)]
                low = [s & constant(LOW, "int16", LANES) for s in halves]
                high = [s >> constant(LOW_BITS, "int16", LANES) for s in halves]
                for part, values in enumerate((low, high)):
                    emitter.store(operand.buffer, cast(joined(values), "int8"), vector, group, part, first)

    @staticmethod
    def _sums(emitter: Emitter, columns: list[Expr], digits: np.ndarray) -> Expr:
        """int16x8: the sums of products of eight entries of a table."""
        terms = [x * constant_vector(digits[:, c].tolist(), "int16") for c, x in enumerate(columns)]
        return emitter.hold(sum(terms[1:], start=terms[0]))

    def tile(
        self, emitter: Emitter, operand: Operand, vectors: list[Expr], packed: dict[str, tirx.Buffer], block: Expr
    ) -> list[list[Expr]]:
        return [self._product(emitter, operand.buffer, index, packed, block) for index in vectors]

    def _product(
        self, emitter: Emitter, tables: tirx.Buffer, index: Expr, packed: dict[str, tirx.Buffer], block: Expr
    ) -> list[Expr]:
        """The products of a block's rows with one vector."""
        sums = [emitter.alloc((LANES,), dtype, "acc") for _ in range(self.units) for dtype in ("uint16", "int16")]
        for buffer in sums:
            emitter.store(buffer, constant(0, str(buffer.dtype), LANES), 0)
        whole, rest = divmod(int(packed["weight"].shape[1]), self.chunk)
        if whole:
            with emitter.loop(whole, "k") as k:
                self._add(emitter, tables, index, packed["weight"], block, k * self.chunk, self.chunk, sums)
        if rest:
            self._add(emitter, tables, index, packed["weight"], block, whole * self.chunk, rest, sums)
        results = []
        for unit in range(self.units):
            low, high = (cast(load(buffer, LANES, 0), "int32") for buffer in sums[2 * unit : 2 * unit + 2])
            bias = load(packed["bias"], LANES, block, unit * LANES)
            results.append((high << constant(LOW_BITS, "int32", LANES)) + low + bias)
        return results

    def _add(
        self,
        emitter: Emitter,
        tables: tirx.Buffer,
        index: Expr,
        weight: tirx.Buffer,
        block: Expr,
        first: Expr,
        groups: int,
        sums: list[tirx.Buffer],
    ) -> None:
        """Add what ``groups`` groups from ``first`` on look up: in bytes, then to ``sums``."""
        count = self.loads * self.in_a_byte
        bytes_: list[list[Expr | None]] = [[None, None] for _ in range(count)]
        for g in range(groups):
            table = [
                [emitter.bind(load(tables, WIDTH, index, first + g, part, r * WIDTH)) for r in range(self.registers)]
                for part in range(2)
            ]
            for u, place in enumerate(self._places(emitter, weight, block, first + g)):
                for part in range(2):
                    found = self.instructions.look_up(table[part], place)
                    before = bytes_[u][part]
                    bytes_[u][part] = emitter.hold(found if before is None else before + found)
        for u in range(count):
            for part in range(2):
                value = bytes_[u][part]
                if part == 0:
                    value = tirx.reinterpret(vector("uint8", WIDTH), value)
                for half, eight in enumerate(pieces(value, LANES)):
                    buffer = sums[2 * (2 * u + half) + part]
                    emitter.store(buffer, load(buffer, LANES, 0) + cast(eight, str(buffer.dtype)), 0)

    def _places(self, emitter: Emitter, weight: tirx.Buffer, block: Expr, group: Expr) -> list[Expr]:
        """Indices int8x16, of 16 rows each, into the tables of one group of columns."""
        result = []
        for r in range(self.loads):
            whole = emitter.bind(load(weight, WIDTH, block, group, r * WIDTH))
            parts = [whole]
            if self.in_a_byte == 2:
                parts = [whole & constant(15, "uint8", WIDTH), whole >> constant(4, "uint8", WIDTH)]
            result += [emitter.bind(tirx.reinterpret(vector("int8", WIDTH), part)) for part in parts]
        return result
