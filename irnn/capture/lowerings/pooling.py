"""Attention pooling: a softmax over time and the mean that it weighs, however a network writes it; sums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from irnn.capture.axes import Varying
from irnn.capture.edges import Axis, Edge, shown
from irnn.capture.lowerings.broadcast import features_sum
from irnn.capture.lowerings.glue import pieced, tail, transpose
from irnn.capture.wiring import UnsupportedError, Wiring
from irnn.nn.attention import Exponential


def softmax(w: Wiring, x: Edge, dim: int | None = None, **kwargs: Any) -> Edge:
    """Over time what weighs a sequence's steps; over all features in float, on what leaves the program."""
    if dim is None or x.time is None or x.dims[dim] != (x.time,):
        return tail("softmax")(w, x, dim)
    if x.form not in ("sum", "scores", "int8", "int16"):
        raise UnsupportedError(f"is taken of {x.producer}, which holds no real numbers", "scores that are computed")
    return replace(x, t=None, form="weights", site=None, score=x, late={}, pieces=(), side=(), producer=w.step.name)


def weigh(w: Wiring, weights: Edge, values: Edge) -> Edge:
    """Weights of steps times these steps: waits for the sum over time."""
    score, fits = weights, len(weights.dims) == len(values.dims)
    for a, b in zip(score.dims, values.dims, strict=False):
        fits = fits and (a in ((), b) or all(axis.sizes[0] == 1 for axis in a))
    if not fits or score.size != 1 or values.time is not score.time:
        raise UnsupportedError(
            f"weighs {shown(values.dims)} by {shown(weights.dims)}",
            "one weight a step: softmax(scores [batch, time, 1])",
        )
    return replace(values, t=None, form="weighed", site=None, score=weights.score, weighed=values, late={})


def pooled(w: Wiring, weighed: Edge, name: str = "") -> tuple[Edge, Axis | None]:
    """The mean ``[batch, features]`` of what is weighed, without its time."""
    assert weighed.score is not None
    assert weighed.weighed is not None
    name = f"{w.step.name}{name}"
    score, values = w.wide(weighed.score), w.narrow(weighed.weighed)
    lengths = weighed.score.lengths or weighed.lengths
    exponential = w.part(f"{name}.exponential", Exponential)
    site = w.site(f"{name}.int8", "activation", values.size)
    if lengths is not None:
        w.a.ragged(lengths.t)
    t = w.a.softmax_mean(exponential, site, score.t, values.t)
    if lengths is not None:
        w.a.ragged(None)
    made = replace(
        values, t=t, form="int8", site=site, time=None, lengths=None, late={}, score=None, weighed=None, producer=name
    )
    return made, values.time


def total(w: Wiring, x: Edge, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Edge:
    """Over time of weighed steps; over features; over time otherwise if a division by the length makes it a mean."""
    (place,) = dim if isinstance(dim, (tuple, list)) and len(dim) == 1 else (dim,)
    if not isinstance(place, int):
        what = "everything" if dim is None else f"the dimensions {list(dim)}"
        raise UnsupportedError(f"sums {what}", "one dimension, of time or of features")
    over_time = x.dims[place] == (x.time,) and x.time is not None
    dims = list(x.dims)
    dims[place : place % len(dims) + 1] = [()] if keepdim else []
    if x.form == "weighed":
        if not over_time:
            raise UnsupportedError(f"sums weighed steps over {shown([x.dims[place]])}", "over time")
        return replace(pooled(w, x)[0], dims=tuple(dims))
    if over_time and x.form in ("lengths", "mask"):
        return replace(x, form="lengths", dims=tuple(dims), time=None, late={})
    if over_time:
        return replace(
            x, t=None, form="total", dims=tuple(dims), weighed=x, time=None, late={}, site=None, pieces=(), side=()
        )
    if not x.dims[place] or any(axis.kind != "size" for axis in x.dims[place]):
        raise UnsupportedError(f"sums over {shown([x.dims[place]])}", "over time or over features")
    return features_sum(w, x, place, keepdim=keepdim, mean=False)


def divided(w: Wiring, x: Edge, by: Any) -> Edge:
    """A sum over time by its length: the mean."""
    source = x.weighed
    assert source is not None
    assert source.time is not None
    lengths = source.lengths
    if isinstance(by, Edge) and by.form == "lengths":
        if lengths is None or by.t is not lengths.t:
            raise UnsupportedError("divides a sum over all steps by lengths", "a sum of masked steps")
    elif not (isinstance(by, Varying) and by.values == source.time.sizes and lengths is None):
        raise UnsupportedError("divides a sum over time by something else than its length", "x.mean(1)")
    values = w.quantized(source)
    if lengths is not None:
        w.a.ragged(lengths.t)
    t = w.a.time_mean(values.t)
    if lengths is not None:
        w.a.ragged(None)
    return replace(
        values, t=t, form="sum", dims=x.dims, time=None, lengths=None, late={}, site=None, producer=w.step.name
    )


def matmul(w: Wiring, a: Edge, b: Edge) -> Edge | None:
    """``weights @ values`` or ``values @ weights``; None where neither holds weights."""
    if b.form == "weights":
        turned = matmul(w, transpose(w, b, -2, -1), transpose(w, a, -2, -1))
        return None if turned is None else transpose(w, turned, -2, -1)
    if a.form != "weights":
        return None
    if a.time is None or len(a.dims) != 3 or len(b.dims) != 3 or a.dims[2] != (a.time,) or b.dims[1] != (a.time,):
        raise UnsupportedError(
            f"multiplies {shown(a.dims)} and {shown(b.dims)}", "[batch, 1, time] and [batch, time, features]"
        )
    assert a.score is not None
    heads = a.dims[1]
    if not heads or a.size == 1:
        made = pooled(w, replace(b, form="weighed", score=a.score, weighed=b))[0]
        return replace(made, dims=(b.dims[0], (), b.dims[2]))
    parts = []
    for k in range(a.size):
        score = w.wide(a.score)
        one = score.become(w.a.slice(score.t, k, k + 1), inner=(), dims=(b.dims[0], b.dims[1]))
        made = pooled(w, replace(b, form="weighed", score=one, weighed=b), f".{k}")[0]
        parts.append(replace(made, dims=(b.dims[0], b.dims[2])))
    return pieced(w, parts, 1, insert=True)


OPERATIONS: dict[str, Callable[..., Any]] = {"softmax": softmax, "sum": total}
