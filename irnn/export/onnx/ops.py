"""The operations namespace that writes ONNX nodes: ``fixed_point`` and ``Operation.apply`` run on it as they stand."""

from __future__ import annotations

from typing import Any

import numpy as np

from irnn.export.axes import Repeated, Size, Steps
from irnn.export.onnx.arrays import WIDE, Array
from irnn.export.onnx.writer import Writer
from irnn.export.shapes import broadcast, known

# Newton's iterations from above, from within a factor of two of the root of what an int64 holds: 2**-k relative error
# is squared each time, and the last ones only step down to the floor.
ROOT_STEPS = 7
BYTE = 128  # the largest magnitude of an 8-bit operand


class Weight:
    """A matrix made ready for :meth:`OnnxOps.matmul`: ``[columns, rows]``."""

    def __init__(self, data: np.ndarray, magnitude: int) -> None:
        self.rows = len(data)
        turned = data.T.astype(np.int32)
        self.bytes = magnitude <= BYTE and bool(turned.min() >= -BYTE and turned.max() < BYTE)
        self.data = (turned + BYTE).astype(np.uint8) if self.bytes else turned


class OnnxOps:
    """See ``irnn.arithmetic.fixed_point`` and ``numpy_ops`` for what each name means."""

    def __init__(self, work: Writer) -> None:
        self.work = work

    def _known(self, data: Any) -> Array:
        data = np.asarray(data)
        return Array(self.work, data.shape, str(data.dtype), data=data)

    def to(self, x: Any, dtype: str) -> Array:
        x = self.work.size(x) if isinstance(x, Steps) else x
        return self.work.cast(x, dtype) if isinstance(x, Array) else self._known(np.asarray(x).astype(dtype))

    def where(self, condition: Array, a: Array, b: Array) -> Array:
        dtype = a.dtype if a.dtype in WIDE else "int32"
        parts = [condition, self.to(a, dtype), self.to(b, dtype)]
        return self.to(self.work.node("Where", parts, broadcast(*(x.shape for x in parts)), dtype), a.dtype)

    def clip(self, x: Array, low: int, high: int) -> Array:
        if x.data is not None:
            return self._known(np.clip(x.data, low, high).astype(x.dtype))
        dtype = x.dtype if x.dtype in WIDE else "int32"
        ends = [self._known(np.array(end, dtype)) for end in (low, high)]
        return self.to(self.work.node("Clip", [self.to(x, dtype), *ends], x.shape, dtype), x.dtype)

    def abs(self, x: Array) -> Array:
        return self.work.node("Abs", [x], x.shape, x.dtype)

    def take(self, table: Array, index: Array) -> Array:
        shape = (*index.shape, *table.shape[1:])
        return self.work.node("Gather", [table, index], shape, table.dtype, axis=0)

    def row_sum(self, x: Array) -> Array:
        axes = self._known(np.array([-1], np.int64))
        return self.work.node("ReduceSum", [x, axes], (*x.shape[:-1], 1), x.dtype, keepdims=1)

    def row_max(self, x: Array) -> Array:
        wide = x if x.dtype in WIDE else self.to(x, "int32")
        largest = self.work.node("ReduceMax", [wide], (*x.shape[:-1], 1), wide.dtype, keepdims=1, axes=[-1])
        return self.to(largest, x.dtype)

    def places(self, x: Array) -> Array:
        return self._known(np.arange(known(x.shape[-1]), dtype=np.int32))

    def floor_div(self, a: Array, b: Array) -> Array:
        return a // b

    def isqrt(self, x: Array) -> Array:
        """Newton's method from a power of two that is not below the root: it falls to the floor and stays there."""
        edges = self._known(np.array([1 << (2 * k) for k in range(32)], np.uint64)[:31].astype(np.int64))
        starts = self._known(np.array([1 << k for k in range(32)], np.int64))  # of 2k - 1 and 2k bits: 2**k
        two, root = self._known(np.array(2, np.int64)), self.take(starts, self.count_le(edges, x))
        for _ in range(ROOT_STEPS):
            step = (root + x // self.clip(root, 1, 1 << 32)) // two
            root = self.where(step <= root, step, root)
        return root

    def count_le(self, table: Array, x: Array) -> Array:
        dtype = "int64" if "int64" in (table.dtype, x.dtype) else "int32"
        last = (*x.shape, 1)
        spread = self.work.node("Unsqueeze", [self.to(x, dtype), self._known(np.array([-1], np.int64))], last, dtype)
        return self.row_sum(self.to(self.to(table, dtype) <= spread, "int32"))[..., 0]

    def keep(self, arrays: list[Array]) -> list[Array]:
        return arrays

    # what operations of a program need beside

    def constant(self, data: np.ndarray, device: Any = None) -> Array:
        return self._known(data)

    def weight(self, data: np.ndarray, magnitude: int, device: Any = None) -> Weight:
        return Weight(data, magnitude)

    def matmul(self, x: Array, weight: Weight) -> Array:
        """Unsigned by unsigned bytes, both shifted by their zero point of 128: no kernel of ONNX Runtime saturates
        there, while ``vpmaddubsw`` does between unsigned and signed ones.  Wider operands take an int32 ``MatMul``."""
        shape = (*x.shape[:-1], weight.rows)
        if not (weight.bytes and x.dtype == "int8"):
            return self.work.node("MatMul", [self.to(x, "int32"), self._known(weight.data)], shape, "int32")
        shifted = self.to(self.to(x, "int32") + BYTE, "uint8")
        zero = self._known(np.array(BYTE, np.uint8))
        return self.work.node("MatMulInteger", [shifted, self._known(weight.data), zero, zero], shape, "int32")

    def concat(self, parts: list[Array]) -> Array:
        rank = max(len(part.shape) for part in parts)
        size = sum(known(part.shape[-1]) for part in parts)
        return self.work.node("Concat", parts, (*parts[0].shape[:-1], size), parts[0].dtype, axis=rank - 1)

    def stack(self, items: Repeated) -> Array:
        """A value at every step."""
        value: Array = items.value[:, None]
        ones = [self._known(np.ones(count, np.int64)) for count in (1, len(value.shape) - 2)]
        parts = [ones[0], self.work.size(items.steps).reshape(1), ones[1]]
        target = self.work.node("Concat", parts, (len(value.shape),), "int64", axis=0)
        shape = (value.shape[0], items.steps, *value.shape[2:])
        return self.work.node("Expand", [value, target], shape, value.dtype)

    def valid(self, lengths: Array, count: Size) -> Array:
        ends = [self._known(np.array(0, np.int64)), self.work.size(count), self._known(np.array(1, np.int64))]
        places = self.work.node("Range", ends, (count,), "int64") + 1
        return places <= self.to(lengths, "int64")[:, None]

    def steps(self, sequence: Array, index: Array) -> Array:
        shape = (sequence.shape[0], *sequence.shape[2:])
        place = self.to(index, "int64")[:, None]
        return self.work.node("GatherND", [sequence, place], shape, sequence.dtype, batch_dims=1)

    def pad(self, x: Array, axis: int, before: int, after: int, value: int) -> Array:
        size = x.shape[axis]
        assert isinstance(size, (int, Steps))
        shape = tuple(size + before + after if k == axis else old for k, old in enumerate(x.shape))
        widths = np.zeros((2, len(shape)), np.int64)
        widths[:, axis] = before, after
        dtype = "int8" if x.dtype == "int8" else "int32"
        wide = self.to(x, dtype)
        filled = self._known(np.array(value, dtype))
        return self.to(self.work.node("Pad", [wide, self._known(widths.reshape(-1)), filled], shape, dtype), x.dtype)
