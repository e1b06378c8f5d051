"""Functions of one number in the float baseline, without a call: arithmetic on whole registers alone."""

from __future__ import annotations

import math
from collections.abc import Callable

from tvm import tirx

from deploy_tvm.codegen.body import Body
from deploy_tvm.codegen.emitter import Expr, constant, lanes_of
from deploy_tvm.codegen.ops.float_ops import F32, exponential, sigmoid, tanh
from deploy_tvm.codegen.rows import Row, combine
from irnn.program import Node


def curve_row(body: Body, node: Node) -> Row:
    """The function that the node names."""
    return combine(F32, CURVES[node.attributes["function"]], body.rows[node.inputs[0]])


def _number(value: float, x: Expr) -> Expr:
    return constant(value, F32, lanes_of(x))


def _abs(x: Expr) -> Expr:
    return tirx.Max(x, _number(0.0, x) - x)


def _softplus(x: Expr) -> Expr:
    """``max(x, 0) + log(1 + u)``, u = exp(-|x|), by ``2 atanh(u / (2 + u))``: the first term left out is below 2e-8."""
    u = exponential(_number(0.0, x) - _abs(x))
    s = u / (_number(2.0, x) + u)
    square, series = s * s, _number(1 / 13, x)
    for k in (11, 9, 7, 5, 3, 1):
        series = series * square + _number(1 / k, x)
    return tirx.Max(x, _number(0.0, x)) + _number(2.0, x) * s * series


def _erf(x: Expr) -> Expr:
    """Within 1.5e-7: Abramowitz and Stegun, 7.1.26."""
    size = _abs(x)
    t = _number(1.0, x) / (_number(1.0, x) + _number(0.3275911, x) * size)
    series = _number(1.061405429, x)
    for c in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = series * t + _number(c, x)
    y = _number(1.0, x) - series * t * exponential(_number(0.0, x) - size * size)
    return tirx.Select(x < _number(0.0, x), _number(0.0, x) - y, y)


def _gelu(x: Expr) -> Expr:
    return _number(0.5, x) * x * (_number(1.0, x) + _erf(x * _number(math.sqrt(0.5), x)))


def _gelu_tanh(x: Expr) -> Expr:
    inner = _number(2 * math.sqrt(2 / math.pi), x) * (x + _number(0.044715, x) * x * x * x)
    return x * sigmoid(inner)


def _elu(x: Expr) -> Expr:
    below = exponential(tirx.Min(x, _number(0.0, x))) - _number(1.0, x)
    return tirx.Select(x > _number(0.0, x), x, below)


def _hardswish(x: Expr) -> Expr:
    gate = x * _number(1 / 6, x) + _number(0.5, x)
    return x * tirx.Min(tirx.Max(gate, _number(0.0, x)), _number(1.0, x))


CURVES: dict[str, Callable[[Expr], Expr]] = {
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "silu": lambda x: x * sigmoid(x),
    "softplus": _softplus,
    "elu": _elu,
    "mish": lambda x: x * tanh(_softplus(x)),
    "softsign": lambda x: x / (_number(1.0, x) + _abs(x)),
    "hardswish": _hardswish,
    "log_sigmoid": lambda x: _number(0.0, x) - _softplus(_number(0.0, x) - x),
    "growth": exponential,
    "abs": _abs,
}
