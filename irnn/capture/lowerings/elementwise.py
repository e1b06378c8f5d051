"""Functions of each number, sums and products of two values, values side by side."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from irnn.capture.edges import Edge, permutation, shown
from irnn.capture.forms import Held
from irnn.capture.lowerings.affine import affine
from irnn.capture.lowerings.broadcast import broadcasts, spread
from irnn.capture.lowerings.glue import pieced, stretch
from irnn.capture.lowerings.lengths import masked, moved
from irnn.capture.lowerings.pooling import divided, weigh
from irnn.capture.wiring import UnsupportedError, Wiring
from irnn.nn.activation import Activation

NUMBERS = (int, float, Held)


def _activation(function: str) -> Callable[..., Edge]:
    def activation(w: Wiring, input: Edge) -> Edge:
        """A table on the grid of 16 bits, or of the site that the value has; as an output at 16 bits."""
        x = input if input.form in ("int8", "int16") and input.site is not None and not input.apart else w.wide(input)
        assert x.site is not None  # what `wide` gives, or the value's own
        site = x.site
        wide = set(w.plan.readers(w.index)) == {"output"}
        part = w.part(f"{w.step.name}.{function}", lambda: Activation(function, site, wide=wide))
        return _like(w, x, w.a.activation(part, x.t), "int16" if wide else "int8")

    return activation


def _curve(function: str) -> Callable[..., Edge]:
    def curve(w: Wiring, input: Edge, inplace: bool = False) -> Edge:
        """A table onto a site of its own: at 8 bits, as an output at 16."""
        return _by_table(w, input, function)

    return curve


def _by_table(w: Wiring, input: Edge, function: str, name: str = "") -> Edge:
    """The function of a value at 16 bits or at the site that it has."""
    x = input if input.form in ("int8", "int16") and input.site is not None and not input.apart else w.wide(input)
    assert x.site is not None  # what `wide` gives, or the value's own
    site = x.site
    name = f"{w.step.name}.{name or function}"
    wide = set(w.plan.readers(w.index)) == {"output"}
    form, role = ("int16", "preactivation") if wide else ("int8", "activation")
    output = w.site(f"{name}_{form}", role, w.site_size(x))
    part = w.part(name, lambda: Activation(function, site, output=output))
    return replace(_like(w, x, w.a.activation(part, x.t), form, output), producer=name)


def gelu(w: Wiring, input: Edge, approximate: str = "none") -> Edge:
    """Both forms."""
    return _by_table(w, input, "gelu_tanh" if approximate == "tanh" else "gelu")


def softplus(w: Wiring, input: Edge, beta: float = 1.0, threshold: float = 20.0) -> Edge:
    """``log(1 + exp(beta x)) / beta``; above ``threshold`` torch leaves out what float has no bits for."""
    return _stretched(w, input, "softplus", 1 / beta)


def celu(w: Wiring, input: Edge, alpha: float = 1.0, inplace: bool = False) -> Edge:
    """``alpha elu(x / alpha)``."""
    return _stretched(w, input, "elu", alpha)


def _stretched(w: Wiring, input: Edge, function: str, factor: float) -> Edge:
    """``factor f(x / factor)``."""
    if factor == 1:
        return _by_table(w, input, function)
    if not factor > 0:
        raise UnsupportedError(f"is called with a factor of {factor}", "a positive number")
    return _scaled(w, _by_table(w, _scaled(w, input, 1 / factor), function), factor)


def elu(w: Wiring, input: Edge, alpha: float = 1.0, inplace: bool = False) -> Edge:
    """``max(x, 0) + alpha min(elu(x), 0)``."""
    if alpha == 1:
        return _by_table(w, input, "elu")
    x = w.wide(input)
    return _two_sided(w, x, _by_table(w, x, "elu"), float(alpha))


def selu(w: Wiring, input: Edge, inplace: bool = False) -> Edge:
    """``scale elu(x)`` with the alpha of Klambauer et al. 2017."""
    return _scaled(w, elu(w, input, 1.6732632423543772), 1.0507009873554805)


def prelu(w: Wiring, input: Edge, weight: Any) -> Edge:
    """``max(x, 0) + slope min(x, 0)``, a slope of all or one a feature."""
    if not isinstance(weight, Held):
        raise UnsupportedError("takes slopes that are computed", "nn.PReLU")
    x = w.wide(input)
    return _two_sided(w, x, x, weight)


def leaky_relu(w: Wiring, input: Edge, negative_slope: float = 0.01, inplace: bool = False) -> Edge:
    """``max(x, 0) + slope min(x, 0)``."""
    x = w.wide(input)
    return _two_sided(w, x, x, float(negative_slope))


def _two_sided(w: Wiring, above: Edge, below: Edge, slope: Any) -> Edge:
    """``max(above, 0) + slope min(below, 0)``, at 16 bits."""
    parts = []
    for k, (x, low, high) in enumerate(((above, 0.0, None), (below, None, 0.0))):
        site = w.site(f"{w.step.name}.part_{k}", "preactivation", x.size)
        parts.append(_like(w, x, w.a.clamp(site, x.t, low, high), "int16", site))
    y = mul(w, parts[1], slope) if slope != 0 else None
    terms = [parts[0].t, *([] if y is None else [_term(w, replace(y, producer=f"{w.step.name}.below"))])]
    site = w.site(f"{w.step.name}.int16", "preactivation", above.size)
    return _like(w, above, w.a.residual(site, *terms), "int16", site)


def square(w: Wiring, input: Edge) -> Edge:
    """``x x``."""
    return mul(w, input, input)


def power(w: Wiring, input: Any, exponent: Any) -> Edge:
    """``x ** 2``."""
    if exponent != 2 or not isinstance(input, Edge):
        raise UnsupportedError(f"raises to {exponent!r}", "x ** 2, or x * x")
    return square(w, input)


def _like(w: Wiring, x: Edge, t: Any, form: str, site: Any = None) -> Edge:
    """A new value of the step's, with the axes of ``x``."""
    return replace(x, t=t, form=form, site=site, producer=w.step.name, late={}, pieces=(), side=(), banded=False)


def relu(w: Wiring, input: Edge, inplace: bool = False) -> Edge:
    """At a site whose range starts at 0."""
    return _clamped(w, input, 0.0, None)


def clamp(w: Wiring, input: Edge, min: Any = None, max: Any = None) -> Edge:
    """Between two numbers."""
    return _clamped(w, input, min, max)


def hardtanh(w: Wiring, input: Edge, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Edge:
    return _clamped(w, input, min_val, max_val)


def relu6(w: Wiring, input: Edge, inplace: bool = False) -> Edge:
    return _clamped(w, input, 0.0, 6.0)


def _clamped(w: Wiring, input: Edge, low: Any, high: Any) -> Edge:
    """At 8 bits, or at 16 as an output."""
    for bound in (low, high):
        if not (bound is None or isinstance(bound, (int, float))):
            raise UnsupportedError("clamps to a tensor", "numbers as bounds")
    x = w.quantized(input) if input.apart else input
    form, role = ("int16", "preactivation") if set(w.plan.readers(w.index)) == {"output"} else ("int8", "activation")
    site = w.site(f"{w.step.name}.{form}", role, w.site_size(x))
    t = w.a.relu(site, x.t) if (low, high) == (0.0, None) else w.a.clamp(site, x.t, low, high)
    return _like(w, x, w.flat(x, t), form, site)


def glu(w: Wiring, input: Edge, dim: int = -1) -> Edge:
    """One half, gated by the other."""
    size = input.dims[dim][0].sizes[0] // 2 if len(input.dims[dim]) == 1 else 0
    a, b = (
        replace(stretch(w, input, dim, slice(k * size, (k + 1) * size)), producer=f"{w.step.name}.{k}") for k in (0, 1)
    )
    return mul(w, a, _activation("sigmoid")(w, b))


def hardsigmoid(w: Wiring, input: Edge, inplace: bool = False) -> Edge:
    """``clamp(x / 6 + 1/2, 0, 1)``."""
    return _clamped(w, replace(affine(w, _scaled(w, input, 1 / 6), 1.0, 0.5), producer=f"{w.step.name}.line"), 0.0, 1.0)


def add(w: Wiring, input: Any, other: Any, *, alpha: float = 1) -> Edge:
    """At 16 bits, one rounding a term."""
    if alpha != 1:
        raise UnsupportedError(f"adds {alpha} times a value", "a sum, and a product before it")
    if isinstance(other, NUMBERS) or isinstance(input, NUMBERS):
        x, number = (input, other) if isinstance(input, Edge) else (other, input)
        return affine(w, x, 1.0, number)
    x, y = _pair(w, input, other, "adds")
    if "zero" in (x.form, y.form):
        return y if x.form == "zero" else x
    site = w.site(f"{w.step.name}.int16", "preactivation", x.size)
    return _like(w, x, w.a.residual(site, _term(w, x), _term(w, y)), "int16", site)


def sub(w: Wiring, input: Any, other: Any, *, alpha: float = 1) -> Edge:
    """As a sum."""
    if isinstance(input, Edge) and input.form == "lengths" and isinstance(other, int):
        return moved(w, input, -other)
    if alpha != 1:
        raise UnsupportedError(f"subtracts {alpha} times a value", "a difference, and a product before it")
    if isinstance(other, (int, float)):
        return affine(w, input, 1.0, -other)
    if isinstance(input, NUMBERS):
        return affine(w, other, -1.0, input)
    x, y = _pair(w, input, other, "subtracts")
    site = w.site(f"{w.step.name}.int16", "preactivation", x.size)
    return _like(w, x, w.a.subtract(site, _term(w, x), _term(w, y)), "int16", site)


def _term(w: Wiring, x: Edge) -> Any:
    """A term of a sum: accumulators at 16 bits."""
    return (w.wide(x) if x.accumulated or x.apart else w.quantized(x)).t


def mul(w: Wiring, input: Any, other: Any) -> Edge:
    """Accumulators: the product of two values; by a number only the scale changes."""
    if isinstance(other, NUMBERS) or isinstance(input, NUMBERS):
        x, number = (input, other) if isinstance(input, Edge) else (other, input)
        if isinstance(number, Held) or number <= 0:
            return affine(w, x, number, 0.0)
        return _scaled(w, x, float(number))
    for x, y in ((input, other), (other, input)):
        if isinstance(x, Edge) and isinstance(y, Edge) and x.form in ("weights", "mask"):
            return weigh(w, x, y) if x.form == "weights" else masked(w, y, x)
    x, y = _pair(w, input, other, "multiplies")
    return _like(w, x, w.a.multiply(w.quantized(x).t, w.quantized(y).t), "sum")


def div(w: Wiring, input: Any, other: Any) -> Edge:
    """By a number."""
    if input.form == "total":
        return divided(w, input, other)
    if not isinstance(other, (int, float)):
        raise UnsupportedError("divides by a value", "a product with a gate, or a number")
    return mul(w, input, 1 / other)


def negative(w: Wiring, input: Edge) -> Edge:
    """``-x``."""
    return affine(w, input, -1.0, 0.0)


def _scaled(w: Wiring, x: Edge, factor: float) -> Edge:
    x = w.quantized(x) if x.apart else x
    return replace(x, t=w.a.scale(x.t, factor), producer=w.step.name, late={}, site=None)


def _pair(w: Wiring, x: Any, y: Any, verb: str) -> tuple[Edge, Edge]:
    """Two values of the same axes; one without time is repeated."""
    for value in (x, y):
        if not isinstance(value, Edge):
            raise UnsupportedError(f"{verb} {value!r}", "values of the network, numbers and parameters")
        if value.form in ("ids", "lengths", "state"):
            raise UnsupportedError(f"{verb} {value.producer}, which holds whole numbers", "nn.Embedding")
    if "zero" in (x.form, y.form):
        return x, y
    x, y = _same_length(w, x, y), _same_length(w, y, x)
    x, y = _spread(w, x, y), _spread(w, y, x)
    if len(x.dims) != len(y.dims) or any(not _match(a, b) for a, b in zip(x.dims, y.dims, strict=True)):
        raise UnsupportedError(f"{verb} {shown(x.dims)} and {shown(y.dims)}", "values of the same shape")
    if _order(x) != _order(y):
        raise UnsupportedError(f"{verb} values whose features lie in different orders", "both flattened in one way")
    return x, y


def _spread(w: Wiring, x: Edge, like: Edge) -> Edge:
    """``x`` with its features repeated where ``like`` has more."""
    return spread(w, x, like) if broadcasts(x, like) else x


def _same_length(w: Wiring, x: Edge, like: Edge) -> Edge:
    """``x`` at every step of ``like``, where that alone has time."""
    if x.time is not None or like.time is None:
        return x
    dims = [()] * (len(like.dims) - len(x.dims)) + list(x.dims)
    place = like.dims.index((like.time,)) if (like.time,) in like.dims else None
    if place is None or dims[place] != ():
        return x
    dims[place] = (like.time,)
    x = w.quantized(x)
    t = w.a.repeat(x.t, like.t) if not like.banded else w.repeated(x, like.time)
    return replace(x, t=t, dims=tuple(dims), time=like.time, late={})


def _match(a: Any, b: Any) -> bool:
    fixed = [tuple(axis for axis in d if axis.kind != "size") for d in (a, b)]
    sizes = [math.prod(axis.sizes[0] for axis in d if axis.kind == "size") for d in (a, b)]
    return fixed[0] == fixed[1] and sizes[0] == sizes[1]


def _order(x: Edge) -> Any:
    return permutation([axis for d in x.dims for axis in d if axis.kind == "size"], x.inner)


def cat(w: Wiring, tensors: Any, dim: int = 0) -> Edge:
    """Side by side; only what cannot read them so brings them to one site."""
    edges: list[Edge] = list(tensors)
    for x in edges:
        if not isinstance(x, Edge) or x.form in ("ids", "lengths", "zero", "state"):
            raise UnsupportedError("joins something that holds no real numbers", "values of the network")
    timed = next((x for x in edges if x.time is not None), edges[0])
    edges = [_same_length(w, x, timed) for x in edges]
    first, place = edges[0], dim % len(edges[0].dims)
    if all(x.dims[place] == () for x in edges):
        return pieced(w, [w.quantized(x) for x in edges], place, insert=False)
    for x in edges:
        others = [k for k in range(len(first.dims)) if k != place]
        if len(x.dims) != len(first.dims) or not all(_match(x.dims[k], first.dims[k]) for k in others):
            raise UnsupportedError(f"joins {[shown(e.dims) for e in edges]}", "values of the same batch and time")
        if tuple(x.dims[place]) != x.inner:
            raise UnsupportedError(
                f"joins along {shown([x.dims[place]])} of {shown(x.dims)}", "values joined along their features"
            )
    axis = w.features(sum(x.size for x in edges))
    dims = tuple((axis,) if k == place else d for k, d in enumerate(first.dims))
    side = tuple(part for x in edges for part in (x.side or (x,)))
    return replace(
        first, t=None, form="int8", site=None, dims=dims, inner=(axis,), producer=w.step.name, side=side, pieces=(),
        late={}, banded=False,
    )  # fmt: skip


OPERATIONS: dict[str, Callable[..., Any]] = {
    "sigmoid": _activation("sigmoid"), "tanh": _activation("tanh"), "relu": relu, "relu6": relu6, "clamp": clamp,
    "hardtanh": hardtanh, "glu": glu, "hardsigmoid": hardsigmoid, "leaky_relu": leaky_relu, "prelu": prelu,
    **{name: _curve(name) for name in ("silu", "mish", "softsign", "hardswish", "log_sigmoid", "growth", "abs")},
    "gelu": gelu, "softplus": softplus, "elu": elu, "celu": celu, "selu": selu, "square": square, "pow": power,
    "add": add, "sub": sub, "mul": mul, "div": div, "neg": negative, "cat": cat,
}  # fmt: skip
