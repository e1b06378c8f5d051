"""Values of a captured network as a wiring holds them, and everything that only moves axes, which costs nothing.

Whatever order the network has its axes in, an executor's value is a sequence of flat features (or one without time).
An edge says how the dimensions that the network sees are made of the batch, of time and of parts of the features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from irnn.capture.axes import Sizes
from irnn.errors import IrnnError
from irnn.quant.site import QuantSite

# How an edge's numbers are kept: token ids; accumulators, and those of one scale that are outputs; at up to 8 bits, or
# at 16; zeros that no memory holds; lengths of sequences; a state of the program; an input that
# nothing reads.
# What waits for an operation that makes numbers of it: weights of steps and steps that are weighed by them, for a sum
# over time; a sum over time, for its length; which steps are valid.
FORMS = (
    "ids", "sum", "scores", "int8", "int16", "zero", "lengths", "state", "unused", "weights", "weighed", "total",
    "mask",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Axis:
    """Batch, a time, or a part of the features; its sizes in all runs."""

    kind: str
    sizes: Sizes
    name: str = ""  # of an input's time, as programs call it

    def __repr__(self) -> str:
        return str(self.sizes[0]) if self.kind == "size" else self.name or self.kind


Dimension = tuple[Axis, ...]  # axes that one dimension runs over, the last one fastest; () is a dimension of size 1


@dataclass(frozen=True, eq=False)
class Edge:
    """One tensor.  ``t`` is the executor's; ``inner`` the order in which its features hold their axes.

    ``producer`` names what has made it, and thereby its sites; glue keeps that name.  ``site``: where it is quantized,
    if at a site of its own.  ``pieces``: it is not joined yet, ``inner[0]`` numbers them.  ``side``: values side by
    side that are not joined: a product reads each at its own scale.  ``banded``: accumulators of a convolution, in
    which bands and filters are still two axes.  ``border``: zeros that are to stand around each dimension but
    the first two, which a convolution takes in.  ``lengths``: where its sequences end (packed).  ``state``: the
    recurrent step after which it stands, and which of its states it is.  ``score``: what a softmax over time is taken
    of.  ``weighed``: the steps that wait for a sum.  ``offset``: what has been added to lengths.  ``inverted``: a mask
    of padding instead of valid steps.
    """

    t: Any
    form: str
    dims: tuple[Dimension, ...]
    inner: tuple[Axis, ...]
    producer: str
    time: Axis | None = None
    site: QuantSite | None = None
    pieces: tuple[Edge, ...] = ()
    tail: tuple[str, ...] = ()
    banded: bool = False
    lengths: Edge | None = None
    side: tuple[Edge, ...] = ()
    border: tuple[tuple[int, int], ...] = ()
    state: tuple[str, int] | None = None
    score: Edge | None = None
    weighed: Edge | None = None
    offset: int = 0
    inverted: bool = False
    late: dict[str, Any] = field(default_factory=dict)  # forms of this very tensor that there are already

    @property
    def size(self) -> int:
        """Features."""
        return math.prod(axis.sizes[0] for axis in self.inner)

    @property
    def accumulated(self) -> bool:
        """Whether it is at no site yet."""
        return self.form in ("sum", "scores")

    @property
    def apart(self) -> bool:
        """Whether it is several values that have not been brought together."""
        return bool(self.pieces or self.side)

    def become(self, t: Any, **changes: Any) -> Edge:
        """Another tensor."""
        return replace(self, t=t, late={}, **changes)

    def seen(self, dims: Sequence[Dimension]) -> Edge:
        """The same tensor in other dimensions; what has been made of it stays."""
        return replace(self, dims=tuple(dims))

    @property
    def columns(self) -> tuple[Axis, ...]:
        """Axes of the last dimension, which must be all of the features, in the network's order."""
        last = self.dims[-1] if self.dims else ()
        if set(last) != set(self.inner):
            raise IrnnError(
                f"works on a part of the features, {shown(self.dims)}; bring all of them into the last axis"
            )
        return last


def shown(dims: Sequence[Dimension]) -> str:
    """``[batch, time, 16]``."""
    return "[" + ", ".join("*".join(map(repr, d)) or "1" for d in dims) + "]"


def product(axes: Sequence[Axis], runs: int) -> Sizes:
    """Sizes of a dimension over these axes."""
    return tuple(math.prod(axis.sizes[k] for axis in axes) for k in range(runs))


def permutation(columns: Sequence[Axis], inner: Sequence[Axis]) -> list[int] | None:
    """For each feature as the executor has it its place as the network has it; None where they are the same."""
    if tuple(columns) == tuple(inner):
        return None
    strides, step = {}, 1
    for axis in reversed(columns):
        strides[axis] = step
        step *= axis.sizes[0]
    places = [0]
    for axis in inner:
        places = [place + k * strides[axis] for place in places for k in range(axis.sizes[0])]
    return places


def reshaped(edge: Edge, target: Sequence[Sizes]) -> Edge:
    """The edge in dimensions of the sizes ``target``: axes are merged, and those of features split."""
    runs = len(target[0]) if target else 1
    waiting = [axis for dimension in edge.dims for axis in dimension]
    inner, dims = list(edge.inner), []
    for sizes in target:
        taken: list[Axis] = []
        while (have := product(taken, runs)) != sizes:
            if not waiting:
                raise _no_reshape(edge, target)
            axis = waiting.pop(0)
            grown = product([*taken, axis], runs)
            if any(g > s for g, s in zip(grown, sizes, strict=True)) or any(
                s % h for s, h in zip(sizes, have, strict=True)
            ):
                first, second = _split(edge, axis, sizes, have, target)
                place = inner.index(axis)
                inner[place : place + 1] = [first, second]
                waiting.insert(0, second)
                axis = first
            taken.append(axis)
        dims.append(tuple(taken))
    if waiting:
        raise _no_reshape(edge, target)
    return replace(edge, dims=tuple(dims), inner=tuple(inner))


def _split(edge: Edge, axis: Axis, sizes: Sizes, have: Sizes, target: Sequence[Sizes]) -> tuple[Axis, Axis]:
    wanted = sizes[0] // have[0]
    constant = all(s // h == wanted for s, h in zip(sizes, have, strict=True))
    if axis.kind != "size" or not constant or wanted < 2 or axis.sizes[0] % wanted:
        raise _no_reshape(edge, target)
    return Axis("size", (wanted,) * len(sizes)), Axis("size", (axis.sizes[0] // wanted,) * len(sizes))


def _no_reshape(edge: Edge, target: Sequence[Sizes]) -> IrnnError:
    wanted = [sizes[0] for sizes in target]
    lengths = [axis for d in edge.dims for axis in d if axis.kind == "time"]
    baked = [axis.sizes[0] for axis in lengths if any(set(sizes) == {axis.sizes[0]} for sizes in target)]
    if baked:
        return IrnnError(
            f"reshapes {shown(edge.dims)} to {wanted}, in which {baked[0]} is the example's length: the length is "
            "baked in; take it from the tensor, as x.size(1)"
        )
    return IrnnError(
        f"reshapes {shown(edge.dims)} to {wanted}, which mixes batch, time and features or splits a time; transpose "
        "first, and keep batch and time whole"
    )
