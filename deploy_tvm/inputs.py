"""Random inputs of programs, for comparisons and benchmarks."""

from __future__ import annotations

import numpy as np

from irnn.errors import IrnnError
from irnn.program import Program


def random_input(program: Program, steps: int, seed: int = 2) -> np.ndarray:
    """``[1, steps, *shape]``: ids or quantized features over their whole range, standard normal ones for float."""
    if len(program.inputs) != 1:
        raise IrnnError(f"this program reads {', '.join(program.inputs)}: measured is what has one input")
    ((_, value),) = program.inputs.items()
    random = np.random.default_rng(seed)
    shape = (1, steps, *value.shape)
    if value.low is None:
        return random.standard_normal(shape).astype(value.dtype)
    return random.integers(value.low, value.high, shape, endpoint=True).astype(value.dtype)
