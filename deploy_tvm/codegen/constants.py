"""Constants and scratch rows: what a kernel takes as parameters, and how much memory a row needs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import ALIGNMENT, Emitter, load
from deploy_tvm.codegen.rows import SLACK
from deploy_tvm.codegen.spans import Part

# Buffers are padded to whole blocks of every kernel, so that registers are stored whole.
BLOCK = 128


def room(size: int) -> int:
    """Elements to allocate for a row of ``size``."""
    return -(-size // BLOCK) * BLOCK + SLACK


def padded_row(values: np.ndarray) -> np.ndarray:
    """A constant row with its last element repeated in the padding, where it is read but counts for nothing."""
    return np.pad(values, (0, room(values.size) - values.size), mode="edge")


class Constants:
    """The constants of a function, in the order of their first use.

    They are passed together, one parameter for each dtype: every argument costs its callers a check, and from Python
    the time of thousands of multiplications.
    """

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.buffers: dict[str, tirx.Buffer] = {}

    def buffer(self, name: str, make: Callable[[], np.ndarray]) -> tirx.Buffer:
        """The constant ``name``, made at its first use."""
        if name not in self.buffers:
            array = make()
            self.arrays[name] = array
            stem = "".join(c if c.isalnum() else "_" for c in name)
            self.buffers[name] = tirx.decl_buffer(array.shape, str(array.dtype), stem, data_alignment=ALIGNMENT)
        return self.buffers[name]

    def together(self) -> tuple[list[tirx.Buffer], list[np.ndarray], list[tirx.Stmt]]:
        """(parameters, the array of each, statements that say where in them the constants lie)."""
        parameters, arrays, statements = [], [], []
        for dtype in dict.fromkeys(array.dtype for array in self.arrays.values()):
            step, places, parts, end = ALIGNMENT // dtype.itemsize, {}, [], 0
            for name, array in self.arrays.items():
                if array.dtype == dtype:
                    places[name] = end
                    parts.append(np.pad(array.reshape(-1), (0, -array.size % step)))
                    end += parts[-1].size
            whole = tirx.decl_buffer((end,), str(dtype), f"constants_{dtype}", data_alignment=ALIGNMENT)
            for name, place in places.items():
                beginning = tirx.address_of(load(whole, 1, place))
                statements.append(tirx.DeclBuffer(self.buffers[name], data=beginning))
            parameters.append(whole)
            arrays.append(np.concatenate(parts))
        return parameters, arrays, statements


def copy(emitter: Emitter, size: int, source: tirx.Buffer, at: tuple, target: tirx.Buffer, to: tuple) -> None:
    """Copy ``size`` elements, none beyond."""
    with emitter.part(Part.COPY), emitter.loop(size) as i:
        emitter.store(target, load(source, 1, *at, i), *to, i)
