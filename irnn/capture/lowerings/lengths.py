"""Lengths that a network uses itself: masks made of them, and the last step of each sequence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from irnn.capture.edges import Edge
from irnn.capture.forms import Held
from irnn.capture.wiring import UnsupportedError, Wiring

NEAREST = "torch.arange(x.size(1)) < lengths[:, None], lengths an argument of forward"
FAR = -1e3  # what scores of padding are set to, or lower


def counted(w: Wiring, value: Any) -> bool:
    """Whether it is the numbers 0, 1, 2, ... along one dimension: a constant of ``torch.arange``."""
    if not isinstance(value, Held) or value.path not in w.plan.constants:
        return False
    constant = w.plan.constants[value.path]
    return bool(torch.equal(constant.reshape(-1).cpu(), torch.arange(constant.numel(), dtype=constant.dtype)))


def compared(*, less: bool, equal: bool) -> Callable[..., Edge]:
    """``a < b`` and its like, of steps and lengths: which steps are valid."""

    def compare(w: Wiring, input: Any, other: Any) -> Edge:
        turned = isinstance(input, Edge) and input.form == "lengths"
        steps, lengths = (other, input) if turned else (input, other)
        if not (counted(w, steps) and isinstance(lengths, Edge) and lengths.form == "lengths" and not lengths.offset):
            raise UnsupportedError("compares numbers", NEAREST)
        before = less != turned  # steps < lengths, or what is behind them
        if equal == before:  # steps <= lengths, steps > lengths
            raise UnsupportedError("compares steps and lengths so that the step behind the last counts", NEAREST)
        dims = [w.plan.axis(sizes) for sizes in w.step.sizes]
        time = next((axis for d in dims for axis in d if axis.kind == "time"), None)
        if time is None:
            raise UnsupportedError("compares lengths with a fixed number of steps", NEAREST)
        t = lengths.t
        return Edge(t, "mask", tuple(dims), (), w.step.name, time, lengths=lengths, inverted=not before)

    return compare


def inverted(w: Wiring, input: Any, *args: Any) -> Edge:
    """``~mask``, ``mask == 0``, ``mask.logical_not()``."""
    if not isinstance(input, Edge) or input.form != "mask" or args not in ((), (0,), (False,)):
        raise UnsupportedError("decides on numbers", NEAREST)
    return replace(input, inverted=not input.inverted)


def masked_fill(w: Wiring, input: Edge, mask: Any, value: Any) -> Edge:
    """Scores of padding far below all others, or padding as 0."""
    if not (isinstance(mask, Edge) and mask.form == "mask" and mask.inverted and isinstance(value, (int, float))):
        raise UnsupportedError("fills by a mask that is not made of lengths", NEAREST)
    if value <= FAR:
        return replace(input, lengths=mask.lengths)
    return masked(w, input, replace(mask, inverted=False)) if value == 0 else _refuse(value)


def _refuse(value: float) -> Edge:
    raise UnsupportedError(f"fills padding with {value}", "0, or -inf before a softmax")


def masked(w: Wiring, input: Edge, mask: Edge) -> Edge:
    """Padding as 0; it is known to be padding."""
    if mask.inverted or input.time is not mask.time or mask.lengths is None:
        raise UnsupportedError("keeps what lies behind the end of sequences", NEAREST)
    x = w.quantized(input)
    w.a.ragged(mask.lengths.t)
    t = w.a.mask(x.t)
    w.a.ragged(None)
    return replace(x.become(t), lengths=mask.lengths)


def moved(w: Wiring, lengths: Edge, by: Any) -> Edge:
    """``lengths - 1``: where the last steps are."""
    if by != -1 or lengths.offset:
        raise UnsupportedError(f"moves lengths by {by}", "lengths - 1, as the place of the last step")
    return replace(lengths, offset=-1)


def last_of(w: Wiring, x: Edge, rows: Any, places: Any) -> Edge:
    """``x[torch.arange(batch), lengths - 1]``."""
    good = isinstance(places, Edge) and places.form == "lengths" and places.offset == -1 and counted(w, rows)
    if not good or x.time is None or x.dims[1] != (x.time,):
        raise UnsupportedError(
            "is indexed by a tensor", "a fixed step, x[torch.arange(batch), lengths - 1], or pack_padded_sequence"
        )
    return ended(w, x, places, (x.dims[0], *x.dims[2:]))


def ended(w: Wiring, x: Edge, lengths: Edge, dims: Any) -> Edge:
    """The last valid step of each sequence."""
    x = w.quantized(x)
    w.a.ragged(lengths.t)
    t = w.a.last(x.t)
    w.a.ragged(None)
    return x.become(t, dims=tuple(dims), time=None, lengths=None)


def gather(w: Wiring, input: Edge, dim: int, index: Any) -> Edge:
    """``x.gather(1, (lengths - 1).view(-1, 1, 1).expand(-1, 1, size))``."""
    good = isinstance(index, Edge) and index.form == "lengths" and index.offset == -1
    if not good or input.time is None or input.dims[dim] != (input.time,) or len(input.dims) != 3:
        raise UnsupportedError("gathers by a tensor", "x[torch.arange(batch), lengths - 1]")
    dims = tuple(() if k == dim % 3 else d for k, d in enumerate(input.dims))
    return ended(w, input, index, dims)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "lt": compared(less=True, equal=False), "ge": compared(less=False, equal=True),
    "gt": compared(less=False, equal=False), "le": compared(less=True, equal=True),
    "invert": inverted, "eq": inverted, "masked_fill": masked_fill, "gather": gather,
}  # fmt: skip
