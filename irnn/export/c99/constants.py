"""A program's constants as C arrays, packed as the program packs them, and as operands of C expressions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from irnn.export.c99.arrays import Array, Index, Number, Stored, plus, times
from irnn.export.c99.memory import DTYPES, Place
from irnn.export.c99.names import Names
from irnn.program import Tensor
from irnn.program.encodings import encode

if TYPE_CHECKING:
    from irnn.export.c99.block import Block
    from irnn.export.c99.writer import Writer

LINE = 110


class Constants:
    """Those of one program; what no expression reads is not written."""

    def __init__(self, tensors: Mapping[str, Tensor], names: Names) -> None:
        self.tensors = tensors
        self._names = names
        self._by_data = {id(tensor.data): name for name, tensor in tensors.items()}
        self._written: dict[str, tuple[str, str, np.ndarray]] = {}  # key -> (C name, comment, array)
        self._more: dict[int, np.ndarray] = {}

    def tensor(self, data: np.ndarray) -> tuple[str, Tensor]:
        """(name, tensor) of the program whose integers ``data`` are."""
        name = self._by_data[id(data)]
        return name, self.tensors[name]

    def array(self, work: Writer, data: np.ndarray) -> Array:
        """The constant as an operand; equal elements are one number in the text."""
        name, tensor = self.tensor(data)
        if data.size and (data == data.flat[0]).all():
            return Number(work, int(data.flat[0]), str(data.dtype), data.shape)
        if tensor.storage_bits < 8 or tensor.encoding == "codebook":
            return Packed(work, self, name, tensor)
        return Known(work, Place(name, str(data.dtype), data.size, fixed=self.write(name, data, name)), data)

    def write(self, key: str, array: np.ndarray, comment: str) -> str:
        """The C name of an array that is to be written."""
        if key not in self._written:
            self._written[key] = (self._names.like(f"k_{key}"), comment, array)
        return self._written[key][0]

    def packed(self, name: str, tensor: Tensor) -> tuple[str, str | None]:
        """(C name of the packed rows, that of the codebook's values or None)."""
        packed, values = encode(tensor.data, tensor.bits, tensor.encoding)
        rows = self.write(name, packed, f"{name}: {tensor.encoding} of {tensor.bits} bits, {_shape(tensor.data)}")
        if values is None:
            return rows, None
        return rows, self.write(f"{name}.values", np.array(values, np.int16), f"the values of {name}")

    def bytes(self) -> int:
        """Of everything that is written."""
        return sum(array.nbytes for _, _, array in self._written.values())

    def definitions(self) -> list[str]:
        """The C text."""
        lines: list[str] = []
        for name, comment, array in self._written.values():
            lines += [f"/* {comment} */", f"static const {DTYPES[str(array.dtype)]} {name}[{array.size}] = {{"]
            line = ""
            for value in array.reshape(-1).tolist():
                text = f"{value}," if value > -(1 << 31) else f"(-{-value - 1} - 1),"
                if len(line) + len(text) > LINE:
                    lines.append(line)
                    line = ""
                line += text
            lines += [line, "};"]
        return lines


class Known(Stored):
    """A constant whose integers have a C type of their own."""

    def __init__(self, work: Writer, place: Place, data: np.ndarray) -> None:
        contiguous = Stored.contiguous(work, place, data.shape)
        super().__init__(work, place, data.shape, contiguous.strides)
        self.data = data


class Packed(Array):
    """A constant of fields of fewer than 8 bits, unpacked where it is read."""

    def __init__(self, work: Writer, constants: Constants, name: str, tensor: Tensor) -> None:
        super().__init__(work, tensor.data.shape, str(tensor.data.dtype))
        self.tensor, (self.rows, self.values) = tensor, constants.packed(name, tensor)
        self.row_bytes = -(-tensor.data.shape[-1] * tensor.storage_bits // 8)

    def row(self, index: Sequence[Index]) -> str:
        """The C expression for where a row begins; index: without the last axis."""
        total: Index = 0
        for i, size in zip(index, self.shape[:-1], strict=True):
            assert isinstance(size, int)
            total = plus(times(total, size), i)
        return str(plus(self.rows, times(total, self.row_bytes)))

    def element(self, block: Block, index: Sequence[Index]) -> str:
        *outer, k = self.aligned(index)
        row, bits = self.row(outer), self.tensor.storage_bits
        if self.values is not None:
            return f"{self.values}[irnn_field({row}, {k}, {bits})]"
        if self.tensor.encoding == "binary":
            return f"irnn_binary_field({row}, {k})"
        return f"irnn_signed_field({row}, {k}, {bits})"

    def dot(self, operand: str, x: str, row: str) -> str:
        """The C expression of a row's product with ``x``."""
        bits, count = self.tensor.storage_bits, self.shape[-1]
        if self.values is not None:
            return f"irnn_dot_{operand}_codebook({x}, {row}, {count}, {bits}, {self.values})"
        if self.tensor.encoding == "binary":
            return f"irnn_dot_{operand}_binary({x}, {row}, {count})"
        if bits in (2, 4):
            return f"irnn_dot_{operand}_bits{bits}({x}, {row}, {count})"
        return f"irnn_dot_{operand}_bits({x}, {row}, {count}, {bits})"


def _shape(data: np.ndarray) -> str:
    return "x".join(map(str, data.shape))
