"""Functions of each number, sums and products of two values, values side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from irnn.capture.edges import Edge, permutation, shown
from irnn.capture.wiring import UnsupportedError, Wiring
from irnn.nn.activation import Activation


def _activation(function: str) -> Callable[..., Edge]:
    def activation(w: Wiring, input: Edge) -> Edge:
        """A table on the grid of 16 bits, or of the site that the value has."""
        x = input if input.form in ("int8", "int16") and input.site is not None and not input.pieces else w.wide(input)
        assert x.site is not None  # what `wide` gives, or the value's own
        site = x.site
        part = w.part(f"{w.step.name}.{function}", lambda: Activation(function, site))
        return _like(w, x, w.a.activation(part, x.t), "int8")

    return activation


def _like(w: Wiring, x: Edge, t: Any, form: str, site: Any = None) -> Edge:
    """A new value of the step's, with the axes of ``x``."""
    return replace(x, t=t, form=form, site=site, producer=w.step.name, late={}, pieces=())


def relu(w: Wiring, input: Edge, inplace: bool = False) -> Edge:
    """At a site whose range starts at 0."""
    x = w.quantized(input) if input.pieces else input
    form, role = ("int16", "preactivation") if set(w.plan.readers(w.index)) == {"output"} else ("int8", "activation")
    site = w.site(f"{w.step.name}.{form}", role, x.size)
    return _like(w, x, w.a.relu(site, x.t), form, site)


def clamp(w: Wiring, input: Edge, min: Any = None, max: Any = None) -> Edge:
    """Between two numbers."""
    x = w.quantized(input) if input.pieces else input
    for bound in (min, max):
        if not (bound is None or isinstance(bound, (int, float))):
            raise UnsupportedError("clamps to a tensor", "numbers as bounds")
    site = w.site(f"{w.step.name}.int8", "activation", x.size)
    return _like(w, x, w.a.clamp(site, x.t, min, max), "int8", site)


def hardtanh(w: Wiring, input: Edge, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Edge:
    return clamp(w, input, min_val, max_val)


def relu6(w: Wiring, input: Edge, inplace: bool = False) -> Edge:
    return clamp(w, input, 0.0, 6.0)


def add(w: Wiring, input: Any, other: Any, *, alpha: float = 1) -> Edge:
    """At 16 bits, one rounding a term."""
    x, y = _pair(w, input, other, "adds")
    if alpha != 1:
        raise UnsupportedError(f"adds {alpha} times a value", "a sum, and a product before it")
    if "zero" in (x.form, y.form):
        return y if x.form == "zero" else x
    site = w.site(f"{w.step.name}.int16", "preactivation", x.size)
    return _like(w, x, w.a.residual(site, _term(w, x), _term(w, y)), "int16", site)


def sub(w: Wiring, input: Any, other: Any, *, alpha: float = 1) -> Edge:
    """As a sum."""
    x, y = _pair(w, input, other, "subtracts")
    if alpha != 1:
        raise UnsupportedError(f"subtracts {alpha} times a value", "a difference, and a product before it")
    site = w.site(f"{w.step.name}.int16", "preactivation", x.size)
    return _like(w, x, w.a.subtract(site, _term(w, x), _term(w, y)), "int16", site)


def _term(w: Wiring, x: Edge) -> Any:
    """A term of a sum: accumulators at 16 bits."""
    return (w.wide(x) if x.accumulated or x.pieces else w.quantized(x)).t


def mul(w: Wiring, input: Any, other: Any) -> Edge:
    """Accumulators: the product of two values."""
    x, y = _pair(w, input, other, "multiplies")
    return _like(w, x, w.a.multiply(w.quantized(x).t, w.quantized(y).t), "sum")


def _pair(w: Wiring, x: Any, y: Any, verb: str) -> tuple[Edge, Edge]:
    """Two values of the same axes."""
    for value in (x, y):
        if not isinstance(value, Edge):
            what = f"the number {value}" if isinstance(value, (int, float)) else "a parameter"
            raise UnsupportedError(f"{verb} {what}", "fold it into the nn.Linear before or behind")
        if value.form in ("ids", "lengths"):
            raise UnsupportedError(f"{verb} {value.producer}, which holds whole numbers", "nn.Embedding")
    if "zero" in (x.form, y.form):
        return x, y
    if len(x.dims) != len(y.dims) or any(not _match(a, b) for a, b in zip(x.dims, y.dims, strict=True)):
        raise UnsupportedError(f"{verb} {shown(x.dims)} and {shown(y.dims)}", "values of the same shape")
    if _order(x) != _order(y):
        raise UnsupportedError(f"{verb} values whose features lie in different orders", "both flattened in one way")
    return x, y


def _match(a: Any, b: Any) -> bool:
    fixed = [tuple(axis for axis in d if axis.kind != "size") for d in (a, b)]
    sizes = []
    for d in (a, b):
        size = 1
        for axis in d:
            size *= axis.sizes[0] if axis.kind == "size" else 1
        sizes.append(size)
    return fixed[0] == fixed[1] and sizes[0] == sizes[1]


def _order(x: Edge) -> Any:
    return permutation([axis for d in x.dims for axis in d if axis.kind == "size"], x.inner)


def cat(w: Wiring, tensors: Any, dim: int = 0) -> Edge:
    """Side by side, at one site."""
    edges = list(tensors)
    first = edges[0]
    for x in edges:
        if not isinstance(x, Edge) or x.form in ("ids", "lengths", "zero"):
            raise UnsupportedError("joins something that holds no real numbers", "values of the network")
        if len(x.dims) != len(first.dims) or any(
            not _match(a, b)
            for k, (a, b) in enumerate(zip(x.dims, first.dims, strict=True))
            if k != dim % len(first.dims)
        ):
            raise UnsupportedError(f"joins {[shown(e.dims) for e in edges]}", "values of the same batch and time")
        if set(x.dims[dim]) != set(x.inner) or tuple(x.dims[dim]) != x.inner:
            raise UnsupportedError(
                f"joins along {shown([x.dims[dim]])} of {shown(x.dims)}", "values joined along their features"
            )
    size = sum(x.size for x in edges)
    site = w.site(f"{w.step.name}.int8", "activation", size)
    t = w.a.join(site, [_part_of_join(w, x) for x in edges])
    axis = w.features(size)
    dims = tuple((axis,) if k == dim % len(first.dims) else d for k, d in enumerate(first.dims))
    return replace(_like(w, first, t, "int8", site), dims=dims, inner=(axis,))


def _part_of_join(w: Wiring, x: Edge) -> Any:
    return x.t if x.accumulated and not x.pieces else w.quantized(x).t


OPERATIONS: dict[str, Callable[..., Any]] = {
    "sigmoid": _activation("sigmoid"), "tanh": _activation("tanh"), "relu": relu, "relu6": relu6, "clamp": clamp,
    "hardtanh": hardtanh, "add": add, "sub": sub, "mul": mul, "cat": cat,
}  # fmt: skip
