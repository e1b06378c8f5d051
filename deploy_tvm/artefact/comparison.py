"""Integers against integers: how many of a built program's differ from the interpreter's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from irnn.errors import IrnnError


def count_mismatches(what: str, found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> dict[str, int]:
    """``{"count", "compared"}`` of elements, array by array; another shape or dtype is an ``IrnnError``.

    what: who gave ``found``, in words; ``expected`` is the interpreter's.
    """
    count = compared = 0
    for ours, theirs in zip(found, expected, strict=True):
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            raise IrnnError(f"{what} gives {ours.dtype}{ours.shape}, the interpreter {theirs.dtype}{theirs.shape}")
        count += int((ours != theirs).sum())
        compared += theirs.size
    return {"count": count, "compared": compared}


def added(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """The sum of several comparisons."""
    counts = list(counts)
    return {key: sum(part[key] for part in counts) for key in ("count", "compared")}
