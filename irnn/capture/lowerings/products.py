"""Matrix products that are no ``nn.Linear``: ``matmul``, ``bmm``, ``einsum`` with a parameter, or of two values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from irnn.capture.edges import Edge, shown
from irnn.capture.forms import Held
from irnn.capture.lowerings import pooling
from irnn.capture.lowerings.broadcast import features_sum
from irnn.capture.lowerings.dense import linear
from irnn.capture.lowerings.elementwise import mul
from irnn.capture.lowerings.glue import transpose
from irnn.capture.wiring import UnsupportedError, Wiring

NEAREST = "nn.Linear with a fixed weight, a gate, or attention pooling over time"


def matmul(w: Wiring, input: Any, other: Any) -> Edge:
    """``x @ W``; weights of steps and these steps; the score of each step with one query."""
    if isinstance(other, Held) and isinstance(input, Edge):
        return linear(w, input, replace(other, turned=not other.turned))
    if not isinstance(input, Edge) or not isinstance(other, Edge):
        raise UnsupportedError("multiplies a matrix with a parameter that stands first", "nn.Linear")
    made = pooling.matmul(w, input, other)
    if made is not None:
        return made
    query, keys, flipped = (other, input, False) if other.time is None else (transpose(w, input, -2, -1), other, True)
    keys = transpose(w, keys, -2, -1) if flipped else keys
    one = len(query.dims) == len(keys.dims) == 3 and query.dims[2] == () and query.time is None
    if not one or keys.time is None or keys.dims[1] != (keys.time,):
        raise UnsupportedError(f"multiplies {shown(input.dims)} and {shown(other.dims)}", NEAREST)
    asked = transpose(w, query, -2, -1)
    scores = features_sum(w, mul(w, keys, asked), 2, keepdim=True, mean=False)
    return transpose(w, scores, -2, -1) if flipped else scores


def einsum(w: Wiring, equation: str, *operands: Any) -> Edge:
    """Of two operands: ``...h,hk->...k`` with a parameter, or weights of steps and these steps."""
    sides, _, out = equation.replace(" ", "").partition("->")
    given = operands[0] if len(operands) == 1 and isinstance(operands[0], (tuple, list)) else operands
    if len(given) != 2 or "..." in out or not out:
        raise UnsupportedError(f"is called with {equation!r}", "two operands and all letters, as 'bth,hk->btk'")
    (a, b), (x, y) = sides.split(","), given
    if isinstance(x, Held) or (isinstance(y, Edge) and y.form == "weights"):
        (a, b), (x, y) = (b, a), (y, x)
    if isinstance(x, Edge) and isinstance(y, Held) and len(b) == 2 and a[-1] in b:
        (left,) = (letter for letter in b if letter != a[-1])
        if out == a[:-1] + left:
            return linear(w, x, replace(y, turned=y.turned != (b[0] == a[-1])))
    if isinstance(x, Edge) and isinstance(y, Edge) and x.form == "weights" and x.time is not None:
        (time,) = (letter for letter, d in zip(a, x.dims, strict=True) if d == (x.time,))
        if out == b.replace(time, "") and all(n in b for n, d in zip(a, x.dims, strict=True) if d):
            dims = tuple(x.dims[a.index(n)] if n in a else () for n in b)
            place = b.index(time)
            return pooling.total(w, pooling.weigh(w, replace(x, dims=dims), y), place)
    raise UnsupportedError(f"computes {equation!r}", NEAREST)


OPERATIONS: dict[str, Callable[..., Any]] = {"matmul": matmul, "einsum": einsum}
