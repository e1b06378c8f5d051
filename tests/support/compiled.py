"""Rows and products by compiled code: what kernels and the staged arithmetic give, as NumPy arrays."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tvm
import tvm_ffi
from tvm import tirx

from deploy_tvm import targets
from deploy_tvm.codegen.constants import Constants, padded_row
from deploy_tvm.codegen.emitter import Emitter, as_index, prim_func
from deploy_tvm.codegen.kernels import LinearKernel
from deploy_tvm.codegen.kernels.base import Place
from deploy_tvm.codegen.row_ops import RowOps, Term
from deploy_tvm.codegen.rows import SLACK, Block, Row, buffer_row, join, known_row, part
from deploy_tvm.codegen.tiles import many
from deploy_tvm.static.bare import BareFunction
from deploy_tvm.targets.compiler import PIPELINE

# Functions that stay compiled, the last ones: a test calls one with several arrays.
KEPT = 8
Arrays = list[np.ndarray]
_kept: list[tuple[targets.Target, tirx.PrimFunc, Callable[..., Arrays]]] = []

UNTOUCHED = -(1 << 31)


def run(target: targets.Target, buffers: list[tirx.Buffer], emitter: Emitter, *arrays: np.ndarray) -> Arrays:
    """Compile the function and call it on ``arrays``: all of them as they are afterwards."""
    function = prim_func(buffers, emitter.finish(), "main")
    for known, text, made in _kept:
        if known == target and tvm_ffi.structural_equal(text, function):
            return made(*arrays)
    made = compiled(target, function)
    _kept.append((target, function, made))
    del _kept[:-KEPT]
    return made(*arrays)


def compiled(target: targets.Target, function: tirx.PrimFunc) -> Callable[..., Arrays]:
    """What calls the function's machine code on copies of arrays and returns them as they are afterwards."""
    if not target.mtriple.startswith("x86"):
        folder = Path(tempfile.mkdtemp())
        bare = BareFunction(function, target, folder)
        weakref.finalize(bare, shutil.rmtree, folder, ignore_errors=True)
        return lambda *arrays: bare(*arrays)
    library = tvm.tirx.build(tvm.IRModule({"main": function}), target.tvm(), pipeline=PIPELINE)

    def here(*arrays: np.ndarray) -> Arrays:
        tensors = [tvm.runtime.tensor(array) for array in arrays]
        library["main"](*tensors)
        return [tensor.numpy() for tensor in tensors]

    return here


@dataclass(frozen=True)
class Case:
    """``function(ops, *rows)`` of arrays of one length; it may add to ``constants``."""

    function: Callable[..., Row]
    dtype: str
    inputs: tuple[np.ndarray, ...]
    constants: Constants = field(default_factory=Constants)


def elementwise(target: targets.Target, function: Callable[..., Row], dtype: str, *inputs: np.ndarray) -> np.ndarray:
    """``function(ops, *rows)`` evaluated by compiled code on arrays of one length."""
    return all_elementwise(target, [Case(function, dtype, inputs)])[0]


def all_elementwise(target: targets.Target, cases: list[Case]) -> Arrays:
    """Each case's results, by one compiled function: to build, link and start one takes longer than what it does."""
    emitter = Emitter()
    ops = target.kernels().ops(emitter)
    given: list[tuple[tirx.Buffer, np.ndarray]] = []
    results: list[tuple[tirx.Buffer, np.ndarray]] = []
    for n, case in enumerate(cases):
        size = case.inputs[0].size
        room = -(-size // ops.lanes) * ops.lanes + SLACK
        buffers = [tirx.decl_buffer((room,), str(a.dtype), f"x{n}_{k}") for k, a in enumerate(case.inputs)]
        given += zip(buffers, [np.pad(a, (0, room - size), mode="edge") for a in case.inputs], strict=True)
        out = tirx.decl_buffer((room,), case.dtype, f"out{n}")
        results.append((out, np.zeros(room, case.dtype)))
        rows = [buffer_row(buffer, size, str(a.dtype)) for buffer, a in zip(buffers, case.inputs, strict=True)]
        result = case.function(ops, *rows)
        with emitter.loop(-(-size // ops.lanes)) as i:
            emitter.store(out, Block(emitter, i * ops.lanes, ops.lanes).at(result, 0), i * ops.lanes)
        given += zip(case.constants.buffers.values(), case.constants.arrays.values(), strict=True)
    all_buffers, arrays = zip(*given, *results, strict=True)
    found = run(target, list(all_buffers), emitter, *arrays)[len(given) :]
    return [array[: case.inputs[0].size] for array, case in zip(found, cases, strict=True)]


Terms = list[tuple[np.ndarray, ...]]


def requantized(target: targets.Target, terms: Terms, limits: Iterable[tuple[int, int, int, str]]) -> Arrays:
    """``requantize`` as a program's is compiled: of (x, multiplier, shift), the last two constants, x in its range,
    to each (zero point, low, high, dtype)."""
    return all_elementwise(target, [_requantization(terms, *limit) for limit in limits])


def _requantization(terms: Terms, zero_point: int, low: int, high: int, dtype: str) -> Case:
    constants = Constants()

    def function(ops: RowOps, *rows: Row) -> Row:
        def known(k: int) -> Callable[[str, np.ndarray], Row]:
            def constant(role: str, array: np.ndarray) -> Row:
                buffer = constants.buffer(f"{role}_{k}", lambda: padded_row(array))
                return known_row(array, None if (array == array[0]).all() else buffer, str(array.dtype))

            return constant

        parts = [
            Term(row, m, s, int(x.min()), int(x.max()), known(k))
            for k, (row, (x, m, s)) in enumerate(zip(rows, terms, strict=True))
        ]
        return ops.requantize(parts, zero_point, low, high, dtype)

    return Case(function, dtype, tuple(x for x, _, _ in terms), constants)


def multiply(target: targets.Target, kernel: LinearKernel, x: np.ndarray, weight: np.ndarray, bias: np.ndarray):
    """``x @ weight.T + bias`` by ``kernel``: several vectors at once, one by one, and by its unit for many."""
    packed = kernel.pack(kernel.as_read(weight), bias)
    (rows, length), tile = weight.shape, kernel.tile_vectors
    unit = kernel.tiles is not None
    vectors = -(-len(x) // tile) * tile
    counts = sorted({tile, 1})
    ways = len(counts) + unit
    emitter = Emitter()
    ops = target.kernels().ops(emitter)
    given = tirx.decl_buffer((vectors, length + SLACK), str(x.dtype), "x")
    buffers = {role: tirx.decl_buffer(array.shape, str(array.dtype), role) for role, array in packed.items()}
    shape = (ways * vectors + 1, kernel.blocks(rows) * kernel.block_rows)
    out = tirx.decl_buffer(shape, "int32", "out")
    operand = kernel.allocate(emitter, vectors, length)
    with emitter.loop(vectors) as v:
        kernel.fill(emitter, ops, operand, v, buffer_row(given, length, str(x.dtype), v))
    for k, count in enumerate(counts):
        with emitter.loop(vectors // count) as group, emitter.loop(kernel.blocks(rows)) as block:
            chosen = [group * count + m for m in range(count)]
            for v, registers in zip(chosen, kernel.tile(emitter, operand, chosen, buffers, block), strict=True):
                for u, register in enumerate(registers):
                    emitter.store(out, register, v + k * vectors, block * kernel.block_rows + u * kernel.lanes)
    if unit:
        with (
            many(emitter, kernel, operand, buffers, as_index(len(x))) as product,
            emitter.loop(kernel.blocks(rows)) as block,
        ):
            last = (ways - 1) * vectors
            product.multiply(kernel, block, lambda first, _: Place(out, first + last, block * kernel.block_rows))
    output = np.full(shape, UNTOUCHED, np.int32)
    arrays = (np.pad(x, ((0, vectors - len(x)), (0, SLACK))), *packed.values(), output)
    found = run(target, [given, *buffers.values(), out], emitter, *arrays)[-1]
    beyond = found[(ways - 1) * vectors + len(x) if unit else ways * vectors :]
    assert (beyond == UNTOUCHED).all(), "products are stored behind the last vector's"
    return list(found[:-1].reshape(ways, vectors, -1)[:, : len(x), :rows])


def multiply_joined(target: targets.Target, kernel: LinearKernel, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """``x @ weight.T`` for x joined of 5 elements and the rest, in memory that held other operands before."""
    rows, length = weight.shape
    packed = kernel.pack(weight, np.zeros(rows, np.int32))
    emitter = Emitter()
    ops = target.kernels().ops(emitter)
    before = tirx.decl_buffer((64 + SLACK,), "int8", "before")
    given = tirx.decl_buffer((length + SLACK,), "int8", "x")
    buffers = {role: tirx.decl_buffer(array.shape, str(array.dtype), role) for role, array in packed.items()}
    out = tirx.decl_buffer((kernel.blocks(rows) * kernel.block_rows,), "int32", "out")
    operand = kernel.allocate(emitter, 1, length)
    row = buffer_row(given, length, "int8")
    kernel.fill(emitter, ops, operand, 0, buffer_row(before, 64, "int8"))
    kernel.fill(emitter, ops, operand, 0, join([part(row, 0, 5), part(row, 5, length)]))
    with emitter.loop(kernel.blocks(rows)) as block:
        (registers,) = kernel.tile(emitter, operand, [0], buffers, block)
        for u, register in enumerate(registers):
            emitter.store(out, register, block * kernel.block_rows + u * kernel.lanes)
    arrays = (np.full(64 + SLACK, 127, np.int8), np.pad(x, (0, SLACK)), *packed.values())
    output = np.zeros(kernel.blocks(rows) * kernel.block_rows, np.int32)
    return run(target, [before, given, *buffers.values(), out], emitter, *arrays, output)[-1][:rows]
