"""From a network's own order of axes to ``[batch, (time,) features]`` and back, and as a program notes it."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from irnn.capture.edges import Axis, Edge


def from_network(x: Tensor, edge: Edge, *, batch_first: bool) -> Tensor:
    """``x`` as the network has it -> ``[batch, (time,) features]``, or time first; ids have no features."""
    axes = [axis for dimension in edge.dims for axis in dimension]
    shape = []
    for dimension, size in zip(edge.dims, x.shape, strict=True):
        known = math.prod(axis.sizes[0] for axis in dimension if axis.kind == "size")
        shape += [axis.sizes[0] if axis.kind == "size" else size // known for axis in dimension]
    unseen = [axis for axis in _order(edge, batch_first=batch_first) if axis not in axes]
    axes, shape = [*axes, *unseen], [*shape, *[1] * len(unseen)]  # the one step of a network that sees no time
    x = x.reshape(shape).permute([axes.index(axis) for axis in _order(edge, batch_first=batch_first)])
    leading = 2 if edge.time is not None else 1
    if edge.form in ("ids", "lengths"):
        return x
    return x.flatten(leading) if edge.inner else x.unsqueeze(-1)  # one feature, without an axis of its own


def to_network(t: Tensor, edge: Edge) -> Tensor:
    """``t [batch, (time,) features]`` -> the network's own shape."""
    order = _order(edge, batch_first=True)
    sizes = dict(zip(order[: 2 if edge.time is not None else 1], t.shape, strict=False))
    sizes |= {axis: axis.sizes[0] for axis in edge.inner}
    axes = [axis for dimension in edge.dims for axis in dimension]
    axes += [axis for axis in order if axis not in axes]
    t = t.reshape([sizes[axis] for axis in order]).permute([order.index(axis) for axis in axes])
    return t.reshape([math.prod(sizes[axis] for axis in dimension) for dimension in edge.dims])


def _order(edge: Edge, *, batch_first: bool) -> list[Axis]:
    batch = [axis for dimension in edge.dims for axis in dimension if axis.kind == "batch"]
    leading = batch if edge.time is None else [*batch, edge.time] if batch_first else [edge.time, *batch]
    return [*leading, *edge.inner]


def layout(edge: Edge) -> dict[str, Any]:
    """As JSON: each dimension's axes ("batch", "time", or the number of one of the features' axes) and their sizes.

    Whatever a program calls its time is "time" here, of which a tensor has one.

    ``then``: what is taken of it behind the program, in float.
    """
    note = {
        "dims": [[edge.inner.index(a) if a.kind == "size" else a.kind for a in dimension] for dimension in edge.dims],
        "features": [axis.sizes[0] for axis in edge.inner],
    }
    return note | ({"then": edge.tail[0]} if edge.tail else {})
