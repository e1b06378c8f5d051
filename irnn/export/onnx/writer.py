"""Writes ONNX nodes: the graph of a model and, inside of it, the bodies of its scans."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from irnn.export.axes import Size, Steps, Stretch
from irnn.export.onnx.arrays import SHIFT_MAX, Array
from irnn.program import Value
from irnn.program.axes import Axis

TYPES = {
    "bool": TensorProto.BOOL, "int8": TensorProto.INT8, "uint8": TensorProto.UINT8, "int16": TensorProto.INT16,
    "uint16": TensorProto.UINT16, "int32": TensorProto.INT32, "int64": TensorProto.INT64,
}  # fmt: skip
BATCH = Steps(Axis("batch"))
PACKED_MIN = 512  # elements from which on a constant of few values is packed: below, the nodes take more than they save
FIELDS = (1, 2, 4)  # bits of an element that divide a byte


class Writer:
    """``nodes`` are those of the main graph.  Constants belong to it, too: a scan's body reads them from outside."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.unpacking: list[NodeProto] = []  # of constants that are packed; they stand before all others
        self._known: dict[tuple[str, tuple[int, ...], str], str] = {}
        self._current = self.nodes
        self._count = 0
        self._axes: dict[Steps, Array] = {}
        self._sources: dict[str, tuple[str, int]] = {}

    def new_name(self, like: str = "v") -> str:
        """A name that nothing has yet; the program's own never end in a number sign and a number."""
        self._count += 1
        return f"{like}#{self._count}"

    def constant_name(self, data: np.ndarray) -> str:
        """The name of a constant; equal ones are written once."""
        key = (str(data.dtype), data.shape, hashlib.sha256(np.ascontiguousarray(data).tobytes()).hexdigest())
        if key not in self._known:
            values = np.unique(data) if data.size >= PACKED_MIN else None
            bits = None if values is None else next((b for b in FIELDS if len(values) <= 1 << b), None)
            if values is None or bits is None:
                name = self._initializer(self.new_name("c"), data)
            else:
                name = self._unpacked(data, values, bits)
            self._known[key] = name
        return self._known[key]

    def _initializer(self, name: str, data: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(data).reshape(data.shape), name))
        return name

    def _unpacked(self, data: np.ndarray, values: np.ndarray, bits: int) -> str:
        """Several elements a byte, lowest bits first, and the nodes that make the constant of them.

        Nothing in them depends on a call: ONNX Runtime folds them when it loads the model.
        """
        per = 8 // bits
        index = np.searchsorted(values, data.reshape(-1)).astype(np.uint8)
        index = np.pad(index, (0, -len(index) % per)).reshape(-1, per)
        packed = (index << (np.arange(per, dtype=np.uint8) * bits)).sum(1).astype(np.uint8)

        def step(op: str, *inputs: str, **attributes: Any) -> str:
            made = self.new_name("u")
            self.unpacking.append(helper.make_node(op, list(inputs), [made], **attributes))
            return made

        def known(array: Any, dtype: type) -> str:
            return self._initializer(self.new_name("c"), np.asarray(array, dtype))

        wide = step("Cast", self._initializer(self.new_name("c"), packed[:, None]), to=TensorProto.INT32)
        shifted = step("Div", wide, known([[1 << (bits * k) for k in range(per)]], np.int32))
        fields = step("Mod", shifted, known(1 << bits, np.int32))
        flat = step("Reshape", fields, known([-1], np.int64))
        ends = (known([end], np.int64) for end in (0, data.size))
        index_name = step("Slice", flat, *ends)
        taken = step("Gather", self._initializer(self.new_name("c"), values), index_name, axis=0)
        return step("Reshape", taken, known(data.shape, np.int64))

    def node(self, op: str, inputs: list[Array], shape: tuple[Size, ...], dtype: str, **attributes: Any) -> Array:
        """A node of one output."""
        name = self.new_name()
        self._current.append(helper.make_node(op, [x.name for x in inputs], [name], **attributes))
        return Array(self, shape, dtype, name)

    def raw(self, node: NodeProto) -> None:
        """A node that the caller made."""
        self._current.append(node)

    def cast(self, x: Array, dtype: str) -> Array:
        """The same integers in another dtype."""
        if x.dtype == dtype:
            return x
        if x.data is not None:
            return x.known(x.data.astype(dtype))
        return self.node("Cast", [x], x.shape, dtype, to=TYPES[dtype])

    def named(self, x: Array, name: str) -> None:
        """``x`` under a name of the program."""
        self._current.append(helper.make_node("Identity", [x.name], [name]))

    def power_of_two(self, exponent: Array) -> Array:
        """2 to each of the exponents, 0 to 62."""
        powers = np.array([1 << k for k in range(SHIFT_MAX + 1)], np.int64)
        if exponent.data is not None:
            return exponent.known(powers[exponent.data].astype(exponent.dtype))
        table = exponent.known(powers if exponent.dtype == "int64" else powers[:31].astype(np.int32))
        return self.node("Gather", [table, exponent], exponent.shape, exponent.dtype, axis=0)

    @contextmanager
    def body(self) -> Iterator[list[NodeProto]]:
        """Nodes go into the body of a scan."""
        outer, self._current = self._current, []
        axes = dict(self._axes)
        try:
            yield self._current
        finally:
            self._current, self._axes = outer, axes

    # sizes of a call

    def declare(self, name: str, value: Value) -> None:
        """The axes of an input: their sizes can be asked of it."""
        for k, axis in enumerate(("batch", *value.axes)):
            self._sources.setdefault(axis, (name, k))

    def size(self, size: Size) -> Array:
        """A size as a known or computed int64."""
        if isinstance(size, int):
            return Array(self, (), "int64", data=np.array(size, np.int64))
        if isinstance(size, Stretch):
            return self.size(size.steps) * size.scale + size.offset
        if size not in self._axes:
            axis = size.axis
            name, k = self._sources[axis.root]
            shape = self.node("Shape", [Array(self, (), "int64", name)], (1,), "int64")
            count = self.node("Gather", [shape, self.size(k)], (), "int64", axis=0)
            self._axes[size] = count if axis == Axis(axis.root) else (count + axis.offset) // axis.factor
        return self._axes[size]


def value_info(name: str, dtype: str, shape: tuple[Size, ...]) -> ValueInfoProto:
    """An input or output of a graph; sizes of the call have the names of their axes."""
    sizes = [size if isinstance(size, int) else _axis_name(size) for size in shape]
    return helper.make_tensor_value_info(name, TYPES[dtype], sizes)


def _axis_name(size: Size) -> str:
    assert isinstance(size, Steps)
    return size.axis.name
