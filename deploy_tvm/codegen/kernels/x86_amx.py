"""x86 matrix tiles (AMX-INT8): sixteen vectors times sixteen rows of weights and 64 columns in one instruction.

A tile is 16 rows of 64 bytes: of the operand 16 vectors at 64 columns, of the weights 16 groups of four columns of 16
rows, which is how the kernels of AVX512-VNNI store bytes, of the products 16 vectors by 16 rows.  ``tdpbusd`` and
``tdpbsud`` multiply bytes exactly into int32 as ``vpdpbusd`` does, so that operands, biases and corrections are theirs.
Weights of less than a byte are unpacked once for all vectors.

Linux lets a process use tiles once it has asked.  The compiled function asks itself (a tenth of a microsecond, before a
product of 16 vectors or more) and multiplies as without tiles where that is refused, so that no caller has to know.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, Expr, as_index, constant, constant_vector, load, vector
from deploy_tvm.codegen.kernels.base import Address, Held, LinearKernel, Operand, Place
from deploy_tvm.codegen.kernels.x86_codebook import VnniCodebook
from deploy_tvm.codegen.kernels.x86_vnni import VnniFields

# Fewer vectors take less time without tiles: of weights that are bytes, and of those that are unpacked first.
LEAST, LEAST_UNPACKED = 4, 16
# Registers: 0 to 3 hold products; one of the operand and one of weights, whole ones and those of the last columns.
PRODUCTS = 4
OPERAND, WEIGHTS, LAST_OPERAND, LAST_WEIGHTS = 4, 5, 6, 7
ROWS, BYTES = 16, 64
# In the description of the registers: where their heights stand.
HEIGHTS = 48
# arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)
REQUEST = (158, 0x1023, 18)

Packed = dict[str, tirx.Buffer]
# The weights of each unit at four columns, bytes: (emitter, kernel, packed, block, group of columns) -> registers.
Unpack = Callable[..., list[Expr]]


class Amx:
    """What a kernel of 16 lanes multiplies ``least`` vectors or more with, up to ``most`` at once.

    product: the instruction, by the signs of operand and weights.  unpack: None where weights are stored as bytes.
    """

    most = ROWS

    def __init__(self, product: str, unpack: Unpack | None = None) -> None:
        self.product, self.unpack = product, unpack
        self.least = LEAST if unpack is None else LEAST_UNPACKED

    def begin(self, emitter: Emitter, packed: Packed, count: Expr) -> Held:
        open_ = emitter.alloc((1,), "int64", "tiles")
        emitter.store(open_, constant(0, "int64"), 0)
        with emitter.when(count >= self.least):
            refused = tirx.call_extern("int64", "syscall", *(tirx.const(n, "int64") for n in REQUEST))
            emitter.store(open_, tirx.Select(refused.equal(0), constant(1, "int64"), constant(0, "int64")), 0)
        opened = load(open_, 1, 0).equal(1)
        # As few tiles as the vectors need, and each as short as so many allow: a row of a tile takes time.
        tiles = emitter.bind(tirx.Max(as_index(1), tirx.floordiv(count + (ROWS - 1), as_index(ROWS))), "tiles")
        vectors = emitter.bind(tirx.floordiv(count + tiles - 1, tiles), "vectors")
        with emitter.when(opened):
            shapes = emitter.alloc((64,), "uint8", "shapes")
            emitter.store(shapes, constant_vector(_shapes(self._groups(packed) % ROWS), "uint8"), 0)
            for number in (*range(PRODUCTS), OPERAND, LAST_OPERAND):
                emitter.store(shapes, tirx.Cast("uint8", vectors), HEIGHTS + number)
            do(emitter, "ldtilecfg", address(shapes, 0))
        return Held(opened, vectors)

    def end(self, emitter: Emitter) -> None:
        # A thread without tiles is switched faster.
        do(emitter, "tilerelease")

    def weights(self, emitter: Emitter, kernel: LinearKernel, packed: Packed, block: Expr) -> Address:
        """One block's weights as bytes, units beside each other: where a group of columns lies from a byte on."""
        if self.unpack is None:
            return lambda group, start: address(packed["weight"], block, group, start)
        groups = self._groups(packed)
        unpacked = emitter.alloc((groups, kernel.units * BYTES), "uint8", "unpacked")
        with emitter.loop(groups, "k") as k:
            for u, register in enumerate(self.unpack(emitter, kernel, packed, block, k)):
                emitter.store(unpacked, tirx.reinterpret(vector("uint8", BYTES), register), k, u * BYTES)
        return lambda group, start: address(unpacked, group, start)

    def multiply(
        self,
        emitter: Emitter,
        kernel: LinearKernel,
        operand: Operand,
        first: Expr,
        vectors: Expr,
        packed: Packed,
        block: Expr,
        weights: Address,
        target: Place,
    ) -> None:
        """The products of the vectors from ``first`` on with one block, into the target's rows."""
        whole, rest = divmod(self._groups(packed), ROWS)
        apart = tirx.const(stride_of(packed["weight"]) if self.unpack is None else kernel.units * BYTES, "int64")

        def step(chunk: Expr, units: range, x: int, w: int) -> None:
            stride = tirx.const(stride_of(operand.buffer), "int64")
            do(emitter, "tileloadd64", register(x), address(operand.buffer, first, chunk * BYTES), stride)
            for u in units:
                do(emitter, "tileloadd64", register(w), weights(chunk * ROWS, as_index(u * BYTES)), apart)
                do(emitter, self.product, register(u % PRODUCTS), register(x), register(w))

        for begin in range(0, kernel.units, PRODUCTS):
            units = range(begin, min(begin + PRODUCTS, kernel.units))
            for u in units:
                do(emitter, "tilezero", register(u % PRODUCTS))
            with emitter.loop(whole, "chunk") as chunk:
                step(chunk, units, OPERAND, WEIGHTS)
            if rest:
                step(as_index(whole), units, LAST_OPERAND, LAST_WEIGHTS)
            stride = tirx.const(stride_of(target.buffer), "int64")
            for u in units:
                place = address(target.buffer, target.row, target.column + u * kernel.lanes)
                do(emitter, "tilestored64", register(u % PRODUCTS), place, stride)
        with emitter.loop(vectors, "m") as m:
            places = [(target.row + m, target.column + u * kernel.lanes) for u in range(kernel.units)]
            sums = [load(target.buffer, kernel.lanes, *place) for place in places]
            for place, value in zip(
                places, kernel.finished(emitter, operand, first + m, packed, block, sums), strict=True
            ):
                emitter.store(target.buffer, value, *place)

    def _groups(self, packed: Packed) -> int:
        """Groups of four columns of the weights."""
        return int(packed["weight"].shape[1])


def fields(emitter: Emitter, kernel: VnniFields, packed: Packed, block: Expr, k: Expr) -> list[Expr]:
    """Unpack: weights of 4, 2 or 1 bits, as the fields that they are."""
    field, found = kernel.field, []
    for part in range(kernel.loads):
        whole = emitter.bind(load(packed["weight"], BYTES, block, k, part * BYTES))
        pairs = tirx.reinterpret(vector("uint16", BYTES // 2), whole)
        for j in range(field.in_a_byte):
            down = pairs >> constant(field.bits * j, "uint16", BYTES // 2) if j else pairs
            found.append(tirx.reinterpret(vector("uint8", BYTES), down) & constant(field.largest, "uint8", BYTES))
    return found


def looked_up(emitter: Emitter, kernel: VnniCodebook, packed: Packed, block: Expr, k: Expr) -> list[Expr]:
    """Unpack: what a codebook of bytes holds."""
    return [register for (register,) in kernel.registers(emitter, packed, block, k)]


def _shapes(rest: int) -> list[int]:
    """The 64 bytes that give each register its rows and the bytes of a row; ``rest``: groups in the last columns.

    A register with rows of no bytes, or with none, is a fault of the processor's: where nothing is left over the last
    two are whole ones.
    """
    last = rest or ROWS
    rows = [ROWS] * 7 + [last]
    width = [BYTES] * 6 + [4 * last, BYTES]
    palette = [1, *[0] * 15]
    return palette + [byte for n in width for byte in (n, 0)] + [0] * 16 + rows + [0] * 8


def do(emitter: Emitter, name: str, *arguments: Expr) -> None:
    emitter.call(f"llvm.x86.{name}", *arguments)


def register(number: int) -> Expr:
    return tirx.const(number, "uint8")


def address(buffer: tirx.Buffer, *place: Expr) -> Expr:
    return tirx.address_of(load(buffer, 1, *place))


def stride_of(buffer: tirx.Buffer) -> int:
    """Bytes from one row of a buffer to the next."""
    return int(buffer.shape[-1]) * np.dtype(str(buffer.dtype)).itemsize
