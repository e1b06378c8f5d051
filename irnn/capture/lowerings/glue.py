"""Axes and parts: most of it only says the same tensor's dimensions anew."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from irnn.capture.axes import Varying
from irnn.capture.edges import Edge, reshaped, shown
from irnn.capture.forms import Held, Owner
from irnn.capture.lowerings.crop import crop
from irnn.capture.lowerings.lengths import counted, last_of
from irnn.capture.wiring import UnsupportedError, Wiring


def same(w: Wiring, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Moves, copies, conversions."""
    return x


def held(w: Wiring, path: str) -> Any:
    """A parameter or buffer; a constant of zeros is one that no memory holds."""
    if path not in w.plan.constants:
        return Held(path)
    if bool((w.plan.constants[path] == 0).all()):
        return zeros(w)
    if counted(w, Held(path)):
        return Held(path)
    raise UnsupportedError(
        f"reads a constant {list(w.plan.constants[path].shape)} that is made in forward; only zeros and the numbers of "
        "steps are known",
        "a parameter or buffer of the module, torch.zeros, or torch.arange beside lengths",
    )


def zeros(w: Wiring, *args: Any, **kwargs: Any) -> Edge:
    """``torch.zeros`` in whichever form."""
    return w.edge(None, "zero", tuple(w.plan.axis(sizes) for sizes in w.step.sizes))


def reshape(w: Wiring, x: Any, *shape: Any, **kwargs: Any) -> Any:
    """``view``, ``reshape``, ``flatten``, ``unflatten``: by the sizes of the result."""
    if isinstance(x, Held):
        return x
    return reshaped(x, w.step.sizes)


def transpose(w: Wiring, x: Any, dim0: int, dim1: int) -> Any:
    if isinstance(x, Held):
        return replace(x, turned=not x.turned)
    dims = list(x.dims)
    dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
    return x.seen(dims)


def transpose_last(w: Wiring, x: Any) -> Any:
    """``x.mT``, ``x.t()``."""
    return transpose(w, x, -2, -1)


def permute(w: Wiring, x: Edge, *dims: Any) -> Edge:
    order = dims[0] if len(dims) == 1 and isinstance(dims[0], (tuple, list)) else dims
    return x.seen([x.dims[d] for d in order])


def squeeze(w: Wiring, x: Edge, dim: int | Sequence[int] | None = None) -> Edge:
    """Dimensions of size 1; of features of size 1 the axis goes along."""
    chosen = range(len(x.dims)) if dim is None else [dim] if isinstance(dim, int) else dim
    gone = {d % len(x.dims) for d in chosen if all(axis.sizes == (1,) * w.plan.runs for axis in x.dims[d])}
    lost = {axis for d in gone for axis in x.dims[d]}
    kept = [d for k, d in enumerate(x.dims) if k not in gone]
    return replace(x, dims=tuple(kept), inner=tuple(axis for axis in x.inner if axis not in lost))


def unsqueeze(w: Wiring, x: Any, dim: int) -> Any:
    if isinstance(x, Held):
        return x
    dims = list(x.dims)
    dims.insert(dim if dim >= 0 else len(dims) + 1 + dim, ())
    return x.seen(dims)


def dropout(w: Wiring, x: Edge, p: float = 0.5, *args: Any, module: Owner | None = None, **kwargs: Any) -> Edge:
    """In training only, with the probability that the network's own module has at the time."""
    if module is not None:
        p = cast(nn.Dropout, w.network.get_submodule(module.path)).p
    if not isinstance(x, Edge):
        raise UnsupportedError("drops parameters", "dropout of values")
    if x.apart:
        return replace(
            x, pieces=tuple(dropout(w, y, p) for y in x.pieces), side=tuple(dropout(w, y, p) for y in x.side), late={}
        )
    return x.become(w.a.dropout(x.t, p)) if x.form in ("sum", "scores", "int8", "int16") and not x.apart else x


def select(w: Wiring, x: Edge, dim: int, index: Any) -> Edge:
    """``x[..., index, ...]``."""
    dims = list(x.dims)
    dimension = dims.pop(dim)
    if not dimension:
        return x.seen(dims)
    if len(dimension) > 1 and any(axis.kind != "size" for axis in dimension):
        raise UnsupportedError(
            f"takes one of {shown([dimension])}", "a view that gives batch and time dimensions of their own"
        )
    axis = dimension[0]
    if x.banded or (x.side and axis.kind != "time"):
        x = w.quantized(x)
    if axis.kind == "time" and x.side:
        side = tuple(select(w, y, dim, index) for y in x.side)
        return replace(x, dims=tuple(dims), side=side, time=None, lengths=None, late={})
    if axis.kind == "time":
        return x.become(w.a.step(x.t, _step(axis.sizes, index)), dims=tuple(dims), time=None, lengths=None)
    if axis.kind == "batch":
        raise UnsupportedError("takes one sequence of the batch", "every sequence of a batch computed alike")
    if isinstance(index, Varying):
        raise UnsupportedError("takes features by a place that depends on the inputs' sizes", "a fixed place")
    return _part(w, replace(x, dims=tuple(dims)), axis, index % axis.sizes[0], 1, keep=False)


def _step(sizes: tuple[int, ...], index: Any) -> int:
    """A step counted from the start, or from the end where it moves with the length."""
    values = index.values if isinstance(index, Varying) else (index,) * len(sizes)
    if len(set(values)) == 1:
        return values[0]
    from_end = {value - size for value, size in zip(values, sizes, strict=True)}
    if len(from_end) > 1:
        raise UnsupportedError(
            f"takes step {values[0]} of {sizes[0]}, a place that grows otherwise than the length", "x[:, -1]"
        )
    return from_end.pop()


def _part(w: Wiring, x: Edge, axis: Any, start: int, count: int, *, keep: bool) -> Edge:
    """``count`` entries of an axis of features from ``start``."""
    place = x.inner.index(axis)
    if place != 0 and axis.sizes[0] > 1:
        raise UnsupportedError(
            f"takes a part of {shown(x.dims)} whose features lie inside others", "a view that flattens them"
        )
    x = w.quantized(x) if x.side else x
    kept = w.features(count)
    inner = ((kept,) if keep else ()) + tuple(a for a in x.inner if a is not axis)
    dims = tuple(tuple(kept if a is axis else a for a in d if keep or a is not axis) for d in x.dims)
    if x.pieces:
        each = len(x.pieces) // axis.sizes[0]  # more than one where a view has split the axis that numbers them
        pieces = x.pieces[start * each : (start + count) * each]
        if not keep and each == 1:
            return replace(pieces[0], dims=dims, inner=inner)
        return replace(x, pieces=pieces, dims=dims, inner=inner, late={}, producer=w.step.name)
    if count == axis.sizes[0]:
        return replace(x, dims=dims, inner=inner)
    x = x if x.accumulated and not x.banded else w.quantized(x)
    within = math.prod(a.sizes[0] for a in x.inner[1:]) if axis is not x.inner[-1] else 1
    t = w.a.slice(x.t, start * within, (start + count) * within)
    return x.become(t, dims=dims, inner=inner, producer=w.step.name)


def narrow(w: Wiring, x: Edge, dim: int, start: int, length: int) -> Edge:
    return stretch(w, x, dim, slice(start, start + length))


def stretch(w: Wiring, x: Edge, dim: int, index: slice) -> Edge:
    """Neighbouring entries of a dimension."""
    dimension = x.dims[dim]
    if index == slice(None):
        return x
    if len(dimension) != 1 or dimension[0].kind != "size":
        whole = isinstance(index.stop, Varying) and dimension and index.stop.values == dimension[0].sizes
        if whole and index.start in (None, 0) and index.step in (None, 1):
            return x
        if (few := _few(w, x, dim, index)) is not None:
            return few
        ends = _ends(dimension[0].sizes, index) if len(dimension) == 1 and dimension[0].kind == "time" else None
        if ends is None or x.time is None:
            raise UnsupportedError(
                f"takes a stretch of {shown([dimension])}", "all but a fixed number of first or last steps"
            )
        return crop(w, x, x.time, *ends)
    if any(isinstance(v, Varying) for v in (index.start, index.stop, index.step)):
        raise UnsupportedError("takes features by a place that depends on the inputs' sizes", "fixed places")
    start, stop, stride = index.indices(dimension[0].sizes[0])
    if stride != 1:
        raise UnsupportedError(f"takes every {stride}th feature", "a stretch of neighbouring features")
    return _part(w, x, dimension[0], start, stop - start, keep=True)


FEW = 32  # steps that are taken one by one


def _few(w: Wiring, x: Edge, dim: int, index: slice) -> Edge | None:
    """A fixed number of steps, ``x[:, -3:]``: values without time, side by side; None where there is no such number."""
    (axis,) = x.dims[dim] if len(x.dims[dim]) == 1 else (None,)
    if axis is None or axis.kind != "time" or index.step not in (None, 1):
        return None
    taken = []
    for k, size in enumerate(axis.sizes):
        ends = [v.values[k] if isinstance(v, Varying) else v for v in (index.start, index.stop)]
        taken.append(range(*slice(*ends).indices(size)))
    count = len(taken[0])
    if len(set(axis.sizes)) == 1 or {len(steps) for steps in taken} != {count} or not 0 < count <= FEW:
        return None
    parts = [select(w, x, dim, Varying(tuple(steps[k] for steps in taken))) for k in range(count)]
    place = dim % len(x.dims)
    if count == 1:
        return parts[0].seen([*parts[0].dims[:place], (), *parts[0].dims[place:]])
    return pieced(w, [w.quantized(part) for part in parts], place, insert=True)


def _ends(sizes: tuple[int, ...], index: slice) -> tuple[int, int] | None:
    """How many first and last steps a slice leaves out, where that is the same for every length."""
    if index.step not in (None, 1):
        return None
    start = 0 if index.start is None else index.start
    if not isinstance(start, int) or start < 0:
        return None
    stops = index.stop.values if isinstance(index.stop, Varying) else (index.stop,) * len(sizes)
    left = {
        0 if stop is None else -stop if stop < 0 else max(size - stop, 0)
        for stop, size in zip(stops, sizes, strict=True)
    }
    behind = left.pop() if len(left) == 1 else -1
    return (start, behind) if behind >= 0 else None


def getitem(w: Wiring, x: Any, index: Any) -> Any:
    """Of a tuple its item; of a tensor steps and parts."""
    if not isinstance(x, Edge):
        return x[index]
    indices = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in indices:
        place = indices.index(Ellipsis)
        missing = len(x.dims) - sum(i is not None for i in indices) + 1
        indices[place : place + 1] = [slice(None)] * missing
    if len(indices) == 2 and isinstance(indices[1], Edge):
        return last_of(w, x, *indices)
    at = 0
    for i in indices:
        if i is None:
            x, at = unsqueeze(w, x, at), at + 1
        elif isinstance(i, slice):
            x, at = stretch(w, x, at, i), at + 1
        elif isinstance(i, (int, Varying)):
            x = select(w, x, at, i)
        else:
            raise UnsupportedError(
                "is indexed by a tensor", "a fixed step, or a sequence's lengths by pack_padded_sequence"
            )
    return x


def chunk(w: Wiring, x: Edge, chunks: int, dim: int = 0) -> tuple[Edge, ...]:
    size = w.step.sizes[0][dim][0]
    return split(w, x, size, dim)


def split(w: Wiring, x: Edge, split_size: Any, dim: int = 0, **names: Any) -> tuple[Edge, ...]:
    """Parts along features, with one operation where they are equal."""
    x = w.quantized(x) if x.side else x
    dimension = x.dims[dim]
    if len(dimension) != 1 or dimension[0].kind != "size" or x.inner.index(dimension[0]) != 0:
        raise UnsupportedError(f"splits {shown([dimension])} of {shown(x.dims)}", "parts of the features")
    axis, sizes = dimension[0], [part[dim][0] for part in w.step.sizes]
    if len(set(sizes)) == 1 and len(x.inner) == 1:
        parts = w.a.split((x if x.accumulated else w.quantized(x)).t, len(sizes))
        x = x if x.accumulated else w.quantized(x)
        found = []
        for k, t in enumerate(parts):
            kept = w.features(sizes[0])
            dims = tuple((kept,) if axis in d else d for d in x.dims)
            found.append(x.become(t, dims=dims, inner=(kept,), producer=f"{w.step.name}_{k}"))
        return tuple(found)
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    return tuple(
        replace(_part(w, x, axis, start, size, keep=True), producer=f"{w.step.name}_{k}")
        for k, (start, size) in enumerate(zip(starts, sizes, strict=True))
    )


def unbind(w: Wiring, x: Edge, dim: int = 0) -> tuple[Edge, ...]:
    return tuple(replace(select(w, x, dim, k), producer=f"{w.step.name}_{k}") for k in range(len(w.step.sizes)))


def tail(name: str) -> Callable[..., Edge]:
    def behind(w: Wiring, x: Edge, dim: int | None = None, **kwargs: Any) -> Edge:
        """In float, on what leaves the program."""
        if dim is None or (set(x.dims[dim]) != set(x.inner)):
            raise UnsupportedError("is taken over something else than all features", f"{name} over the last axis")
        return x.seen(x.dims) if x.tail else replace(x, tail=(name,), late={})

    return behind


def expand(w: Wiring, x: Any, *sizes: Any, **kwargs: Any) -> Any:
    """``expand``, ``repeat``: a value without time at every step of a sequence that there is; a parameter as it is."""
    if isinstance(x, Held):
        return x
    dims = [w.plan.axis(s) for s in w.step.sizes]
    given = [(), *x.dims] if len(x.dims) < len(dims) else list(x.dims)
    grown = [k for k, (old, new) in enumerate(zip(given, dims, strict=True)) if not old and new]
    if not grown or x.form in ("lengths", "mask"):
        return x.seen(given)
    if x.form == "zero":
        return zeros(w)
    if len(grown) > 1 or dims[grown[0]][0].kind != "time" or x.time is not None:
        raise UnsupportedError(f"repeats {shown(x.dims)} as {shown(dims)}", "values without time repeated over time")
    x = w.quantized(x)
    (time,) = given[grown[0]] = dims[grown[0]]
    return x.become(w.repeated(x, time), dims=tuple(given), time=time)


def attribute(w: Wiring, x: Any, name: str) -> Any:
    """``x.T``, ``torch.max(...).values`` and their like."""
    if name in ("T", "mT"):
        return transpose(w, x, -2, -1)
    if name == "data":
        return x
    if name in ("values", "indices") and isinstance(x, tuple):
        return x[("values", "indices").index(name)]
    raise UnsupportedError(f"reads .{name}", "")


def stack(w: Wiring, tensors: Any, dim: int = 0) -> Edge:
    """Values in an axis of their own."""
    edges = [w.quantized(x) for x in tensors]
    return pieced(w, edges, dim % (len(edges[0].dims) + 1), insert=True)


def pieced(w: Wiring, edges: list[Edge], dim: int, *, insert: bool) -> Edge:
    """Values in one tensor, along a dimension that none of them has (of size 1)."""
    first = edges[0]
    number = w.features(len(edges))
    dims = list(first.dims)
    dims[dim : dim if insert else dim + 1] = [(number,)]
    bare = [replace(x, dims=tuple(d for k, d in enumerate(x.dims) if insert or k != dim)) for x in edges]
    return replace(
        first,
        t=None,
        dims=tuple(dims),
        inner=(number, *first.inner),
        producer=w.step.name,
        pieces=tuple(bare),
        late={},
        site=None,
    )


OPERATIONS: dict[str, Callable[..., Any]] = {
    "same": same, "get_attr": held, "getattr": attribute, "zeros": zeros,
    "reshape": reshape, "flatten": reshape, "unflatten": reshape, "squeeze": squeeze, "unsqueeze": unsqueeze,
    "transpose": transpose, "transpose_2": transpose_last, "permute": permute, "expand": expand, "repeat": expand,
    "select": select, "narrow": narrow, "getitem": getitem, "chunk": chunk, "split": split, "unbind": unbind,
    "stack": stack, "dropout": dropout, "log_softmax": tail("log_softmax"),
}  # fmt: skip
TAILS: dict[str, Callable[..., torch.Tensor]] = {"log_softmax": torch.log_softmax, "softmax": torch.softmax}
# Over time, of the tensor as it leaves: [batch, time, features].
TAILS["softmax_over_time"] = lambda t, dim: torch.softmax(t, dim=1)
