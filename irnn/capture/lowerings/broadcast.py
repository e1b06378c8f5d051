"""Products with matrices of 0 and 1: features repeated where a value is broadcast, and sums over features."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from irnn.capture.borrowed import Borrowed
from irnn.capture.edges import Dimension, Edge
from irnn.capture.wiring import UnsupportedError, Wiring
from irnn.nn.linear import Weight

MATRIX_MAX = 1 << 20  # entries of a matrix that a network does not have itself


class Zeros(Weight):
    """A matrix of 0 and 1, ``[rows, columns]``, on the network's device."""

    def __init__(self, source: Borrowed, ones: np.ndarray) -> None:
        super().__init__("weight")
        self._source, self._ones = source, torch.from_numpy(ones.astype(np.float32))

    @property
    def weight(self) -> Tensor:
        """It is no parameter: nothing trains it."""
        return self._ones.to(next(self._source.network.parameters()).device)

    @property
    def identity(self) -> int:
        return id(self)


def selected(w: Wiring, x: Edge, ones: np.ndarray, name: str) -> Edge:
    """The product of ``ones`` and a quantized value: accumulators of one axis of features."""
    if ones.size > MATRIX_MAX:
        raise UnsupportedError(f"needs a matrix of {ones.shape[0]} by {ones.shape[1]}", "fewer features")
    part = w.part(name, lambda: Zeros(Borrowed(w.network), ones))
    axis = w.features(len(ones))
    return replace(
        x, t=w.a.linear(part, x.t), form="sum", site=None, inner=(axis,), producer=name, late={}, banded=False
    )


def spread(w: Wiring, x: Edge, like: Edge) -> Edge:
    """``x`` with its features repeated as torch broadcasts them, in the axes and the order of ``like``."""
    places = np.arange(x.size).reshape([axis.sizes[0] for axis in x.inner])
    order = [x.inner.index(axis) for d in x.dims for axis in d if axis.kind == "size"]
    places = places.transpose(order).reshape([_count(d) for d in x.dims])
    places = np.broadcast_to(places, [_count(d) for d in like.dims])
    axes = [axis for d in like.dims for axis in d if axis.kind == "size"]
    places = places.reshape([axis.sizes[0] for axis in axes]).transpose([axes.index(axis) for axis in like.inner])
    columns = places.reshape(-1)
    dims = tuple(b if _count(a) != _count(b) or _fixed(a) == () else a for a, b in zip(x.dims, like.dims, strict=True))
    source = w.quantized(x)
    name = f"{w.step.name}.{x.producer}.spread".replace("~", "_")
    if np.array_equal(columns, np.tile(np.arange(x.size), like.size // x.size)) and x.size > 1:
        t = w.a.concat([source.t] * (like.size // x.size))  # as they are: neither scale nor site changes
        return replace(source, t=t, dims=dims, inner=like.inner, producer=name, late={})
    ones = columns[:, None] == np.arange(x.size)
    made = selected(w, source, ones, name)
    return replace(made, dims=dims, inner=like.inner)


def broadcasts(x: Edge, like: Edge) -> bool:
    """Whether torch would repeat features of ``x``, and nothing else, to the shape of ``like``."""
    if len(x.dims) != len(like.dims) or x.size == like.size:
        return False
    return all(_fixed(a) == _fixed(b) and _count(a) in (1, _count(b)) for a, b in zip(x.dims, like.dims, strict=True))


def _count(dimension: Dimension) -> int:
    return math.prod(axis.sizes[0] for axis in dimension if axis.kind == "size")


def _fixed(dimension: Dimension) -> Dimension:
    return tuple(axis for axis in dimension if axis.kind != "size")


def features_sum(w: Wiring, x: Edge, dim: int, *, keepdim: bool, mean: bool) -> Edge:
    """Over one dimension of features: a product with ones, of operands at 16 bits."""
    gone = x.dims[dim]
    x = w.wide(x) if x.accumulated or x.apart else w.quantized(x)
    dims = list(x.dims)
    dims[dim : dim % len(dims) + 1] = [()] if keepdim else []
    kept = tuple(axis for axis in x.inner if axis not in gone)
    groups = np.zeros([axis.sizes[0] for axis in x.inner], int)
    shape = [axis.sizes[0] if axis in kept else 1 for axis in x.inner]
    groups = groups + np.arange(math.prod(shape)).reshape(shape)
    ones = groups.reshape(-1)[None] == np.arange(math.prod(shape))[:, None]
    made = replace(selected(w, x, ones, f"{w.step.name}.ones"), dims=tuple(dims), inner=kept)
    return replace(made, t=w.a.scale(made.t, 1 / _count(gone))) if mean else made
