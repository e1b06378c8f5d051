"""Constants and scratch rows: what a kernel takes as parameters, and how much memory a row needs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.emitter import Emitter, load
from deploy_tvm.codegen.rows import SLACK

# Buffers are padded to whole blocks of every kernel, so that registers are stored whole.
BLOCK = 128


def room(size: int) -> int:
    """Elements to allocate for a row of ``size``."""
    return -(-size // BLOCK) * BLOCK + SLACK


def padded_row(values: np.ndarray) -> np.ndarray:
    """A constant row with its last element repeated in the padding, where it is read but counts for nothing."""
    return np.pad(values, (0, room(values.size) - values.size), mode="edge")


class Constants:
    """The constants that a function takes as parameters, in the order of their first use."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.buffers: dict[str, tirx.Buffer] = {}

    def buffer(self, name: str, make: Callable[[], np.ndarray]) -> tirx.Buffer:
        """The parameter ``name``, made at its first use."""
        if name not in self.buffers:
            array = make()
            self.arrays[name] = array
            stem = "".join(c if c.isalnum() else "_" for c in name)
            self.buffers[name] = tirx.decl_buffer(array.shape, str(array.dtype), stem, data_alignment=64)
        return self.buffers[name]


def copy(emitter: Emitter, size: int, source: tirx.Buffer, at: tuple, target: tirx.Buffer, to: tuple) -> None:
    """Copy ``size`` elements, none beyond."""
    with emitter.loop(size) as i:
        emitter.store(target, load(source, 1, *at, i), *to, i)
