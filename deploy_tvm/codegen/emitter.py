"""Builds the statements of a TIR function in the order in which they are said."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.spans import Part, span

Expr = Any
STACK_BYTES = 8192
ALIGNMENT = 64  # bytes


def vector(dtype: str, lanes: int) -> str:
    """The name of ``lanes`` elements of ``dtype`` in one register: ("int32", 16) -> "int32x16"."""
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def dtype_of(x: Expr) -> str:
    """The dtype of an expression, lanes included."""
    return str(x.ty.dtype)


def lanes_of(x: Expr) -> int:
    """How many elements an expression has."""
    return x.ty.dtype.lanes


def cast(x: Expr, dtype: str, lanes: int = 1) -> Expr:
    """``x`` converted to ``dtype``, of as many lanes as it has; a scalar is spread over ``lanes``."""
    have = lanes_of(x)
    if dtype_of(x) != vector(dtype, have):
        x = tirx.Cast(vector(dtype, have), x)
    return tirx.Broadcast(x, lanes) if lanes > 1 and have == 1 else x


def constant(value: int | float, dtype: str, lanes: int = 1) -> Expr:
    """A known number in every lane."""
    return cast(tirx.const(value, dtype), dtype, lanes)


def constant_vector(values: list[int], dtype: str) -> Expr:
    """A register of known values."""
    if len(set(values)) == 1:
        return tirx.Broadcast(tirx.const(values[0], dtype), len(values))
    return tirx.Shuffle([tirx.const(v, dtype) for v in values], [tirx.const(i, "int32") for i in range(len(values))])


class Emitter:
    """A function body under construction: ``emit`` appends, ``loop`` and ``when`` nest."""

    def __init__(self) -> None:
        self._open: list[list[tirx.Stmt]] = [[]]
        self._memory = 0  # the open body at whose beginning memory is allocated
        self._large: list[tirx.Buffer] = []  # what is asked for there, all at once
        self._names = 0
        self._part = Part.REST

    def emit(self, statement: tirx.Stmt) -> None:
        """Append a statement to the innermost open body."""
        self._open[-1].append(statement)

    def name(self, stem: str) -> str:
        """A name that no other variable of this function has."""
        self._names += 1
        return f"{stem}_{self._names}"

    def bind(self, value: Expr, stem: str = "v") -> Expr:
        """Give ``value`` a name, so that it is computed once."""
        if isinstance(value, tirx.Var | tirx.IntImm | tirx.FloatImm):
            return value
        variable = tirx.Var(self.name(stem), dtype_of(value))
        self.emit(tirx.Bind(variable, value, span(self._part)))
        return variable

    def hold(self, value: Expr) -> Expr:
        """Compute ``value`` here, once, in a chain of values that are used more than once.

        TVM replaces names by what they stand for when it simplifies: in such chains that grows without bound.  It does
        not look through memory, and LLVM turns this memory back into a register.
        """
        if isinstance(value, tirx.Var | tirx.IntImm | tirx.FloatImm | tirx.Broadcast):
            return value
        lanes = lanes_of(value)
        dtype = dtype_of(value)
        register = self.alloc((lanes,), dtype.removesuffix(f"x{lanes}") if lanes > 1 else dtype, "v")
        self.store(register, value, 0)
        return load(register, lanes, 0)

    def alloc(self, shape: tuple[Expr, ...], dtype: str, stem: str = "buffer") -> tirx.Buffer:
        """Scratch memory, allocated where the function (or what is :meth:`apart`) begins: loops would in each round."""
        buffer = tirx.decl_buffer(shape, dtype, self.name(stem), scope="local", data_alignment=ALIGNMENT)
        # Small buffers stay on the stack, where LLVM makes registers of them; TVM would ask its runtime for each.
        if all(isinstance(n, int) for n in shape) and math.prod(shape) * np.dtype(dtype).itemsize <= STACK_BYTES:
            on_stack = {"disable_lower_builtin": tirx.const(True, "bool")}
            self._open[self._memory].append(tirx.AllocBuffer(buffer, on_stack))
        else:
            self._large.append(buffer)
        return buffer

    def _asked_for(self) -> list[tirx.Stmt]:
        """One piece of memory for all that is large: a request costs as much as hundreds of multiplications."""
        end: Expr = as_index(0)
        places = []
        for buffer in self._large:
            places.append(end)
            size = reduce(lambda a, b: a * b, map(as_index, buffer.shape)) * np.dtype(str(buffer.dtype)).itemsize
            end = end + tirx.floordiv(size + (ALIGNMENT - 1), as_index(ALIGNMENT)) * ALIGNMENT
        if not places:
            return []
        whole = tirx.decl_buffer((end,), "uint8", self.name("memory"), scope="local", data_alignment=ALIGNMENT)
        parts = [
            tirx.DeclBuffer(buffer, data=tirx.address_of(load(whole, 1, place)))
            for buffer, place in zip(self._large, places, strict=True)
        ]
        self._large = []
        return [tirx.AllocBuffer(whole, {}), *parts]

    def store(self, buffer: tirx.Buffer, value: Expr, *indices: Expr) -> None:
        """``buffer[indices] = value``; the last index is the first element where ``value`` is a register."""
        lanes, size = lanes_of(value), buffer.shape[-1]
        if isinstance(indices[-1], int) and isinstance(size, tirx.IntImm) and indices[-1] + lanes > int(size):
            raise ValueError(f"{lanes} elements from {indices[-1]} on do not fit {buffer.name}, which has {int(size)}")
        if lanes > 1:
            indices = (*indices[:-1], tirx.Ramp(as_index(indices[-1]), as_index(1), lanes))
        self.emit(tirx.BufferStore(buffer, value, [as_index(i) for i in indices], span(self._part)))

    def call(self, intrinsic: str, *arguments: Expr) -> None:
        """LLVM's ``intrinsic``, for what it does rather than gives."""
        self.emit(tirx.Evaluate(tirx.call_llvm_intrin("void", intrinsic, *arguments), span(self._part)))

    @contextmanager
    def part(self, part: Part | None) -> Iterator[None]:
        """Statements emitted inside belong to ``part``; None: to what those outside do."""
        before, self._part = self._part, self._part if part is None else part
        yield
        self._part = before

    @contextmanager
    def loop(self, extent: Expr, stem: str = "i", *, unroll: bool = False) -> Iterator[Expr]:
        """Statements emitted inside run for each value of the yielded variable, 0 to ``extent`` - 1."""
        variable = tirx.Var(self.name(stem), "int64")
        self._open.append([])
        yield variable
        kind = tirx.ForKind.UNROLLED if unroll else tirx.ForKind.SERIAL
        if (body := self._close()) is not None:
            self.emit(tirx.For(variable, as_index(0), as_index(extent), kind, body, span=span(self._part)))

    @contextmanager
    def when(self, condition: Expr) -> Iterator[None]:
        """Statements emitted inside run where ``condition`` holds."""
        self._open.append([])
        yield
        if (body := self._close()) is not None:
            self.emit(tirx.IfThenElse(condition, body, None, span(self._part)))

    @contextmanager
    def apart(self, condition: Expr) -> Iterator[None]:
        """As :meth:`when`, with memory of its own: where the condition does not hold none is asked for."""
        before = self._memory, self._large
        with self.when(condition):
            self._memory, self._large = len(self._open) - 1, []
            yield
            self._open[-1][:0] = self._asked_for()
            self._memory, self._large = before

    def finish(self) -> tirx.Stmt:
        """The whole body."""
        self._open[-1][:0] = self._asked_for()
        return self._close()

    def _close(self) -> tirx.Stmt | None:
        """The innermost open body; None where nothing was said in it."""
        statements = self._open.pop()
        if not statements:
            return None
        return statements[0] if len(statements) == 1 else tirx.SeqStmt(statements)


def as_index(i: Expr) -> Expr:
    """Python integers become int64 indices."""
    return tirx.const(i, "int64") if isinstance(i, int) else i


def load(buffer: tirx.Buffer, lanes: int, *indices: Expr) -> Expr:
    """``lanes`` consecutive elements along the last axis, beginning at ``indices``."""
    places = [as_index(i) for i in indices]
    if lanes > 1:
        places[-1] = tirx.Ramp(places[-1], as_index(1), lanes)
    return tirx.BufferLoad(buffer, places)


def prim_func(parameters: list[tirx.Buffer], body: tirx.Stmt, name: str) -> tirx.PrimFunc:
    """A function whose buffers do not overlap."""
    function = tirx.PrimFunc(parameters, body)
    return function.with_attrs({"global_symbol": name, "s_tir": True, "tirx.noalias": True})
