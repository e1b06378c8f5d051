"""Weights that are places in a table of up to 16 integers: what the kernels that look them up have in common.

A byte holds the places of the weights of two rows.  Entries beyond a byte (beyond +-127 where signs are transferred)
are the sum of two: then there are two tables, and two multiplications into the same accumulator.
"""

from __future__ import annotations

from copy import copy

import numpy as np

from deploy_tvm.codegen.kernels.base import LinearKernel, blocked

ENTRIES = 16


class CodebookKernel(LinearKernel):
    """What is added to a kernel of 8-bit weights that multiplies the sum of several registers."""

    roles = ("weight", "bias", "table")
    limit = 127
    separable = False  # a byte holds the places of two registers' weights

    def proved_for(self, weight: np.ndarray) -> bool:
        return len(np.unique(weight)) <= ENTRIES and self._within(weight, 2)

    def _within(self, weight: np.ndarray, tables: int = 1) -> bool:
        """Whether so many tables hold the weights."""
        return int(np.abs(weight.astype(np.int32)).max()) <= tables * self.limit

    def of(self, weight: np.ndarray) -> LinearKernel:
        """A unit for many vectors multiplies bytes, which sums of two look-ups are not."""
        if self.tiles is None or self._within(weight):
            return self
        without = copy(self)
        without.tiles = None
        return without

    def as_read(self, weight: np.ndarray) -> np.ndarray:
        return weight

    def looked_up_in(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(the tables int8 [1 or 2, 16], uint8 [rows / 2, columns]: the places of two registers of rows each)."""
        blocks, half = self.blocks(weight.shape[0]), self.units // 2
        values, places = np.unique(weight, return_inverse=True)
        rows = blocked(places.reshape(weight.shape).astype(np.uint8), blocks, self.block_rows)
        pairs = rows.reshape(blocks * half, 2, self.lanes, -1)
        return self._tables(values), (pairs[:, 0] | pairs[:, 1] << 4).reshape(-1, weight.shape[1])

    def _tables(self, values: np.ndarray) -> np.ndarray:
        """Tables whose sum holds ``values``, ascending, in its first places; entries within +-limit."""
        padded = np.zeros(ENTRIES, np.int16)
        padded[: len(values)] = values
        first = np.clip(padded, -self.limit, self.limit)
        parts = [first] if np.array_equal(first, padded) else [first, padded - first]
        return np.stack(parts).astype(np.int8)
