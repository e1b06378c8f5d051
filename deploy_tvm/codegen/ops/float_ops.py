"""The float baseline's operations on rows: vectorized, so that it is an honest one."""

from __future__ import annotations

import math

from tvm import tirx

from deploy_tvm.codegen.body import Body
from deploy_tvm.codegen.emitter import Expr, cast, constant, lanes_of, vector
from deploy_tvm.codegen.row_ops import RowOps
from deploy_tvm.codegen.rows import Row, combine, number
from irnn.program import Node

F32 = "float32"
LOWEST = -3.0e38


def add(body: Body, node: Node) -> Row:
    """``a + b``."""
    a, b = (body.rows[name] for name in node.inputs)
    return a + b


def multiply(body: Body, node: Node) -> Row:
    """``a * b``."""
    a, b = (body.rows[name] for name in node.inputs)
    return a * b


def subtract(body: Body, node: Node) -> Row:
    """``a - b``."""
    a, b = (body.rows[name] for name in node.inputs)
    return a - b


def complement(body: Body, node: Node) -> Row:
    """``1 - x``."""
    return number(1.0, F32) - body.rows[node.inputs[0]]


def relu_row(body: Body, node: Node) -> Row:
    """``max(x, 0)``."""
    return combine(F32, lambda v: tirx.Max(v, constant(0.0, F32, lanes_of(v))), body.rows[node.inputs[0]])


def clamp_row(body: Body, node: Node) -> Row:
    """``min(max(x, low), high)``."""

    def function(v: Expr) -> Expr:
        for key, choose in (("low", tirx.Max), ("high", tirx.Min)):
            if key in node.attributes:
                v = choose(v, constant(node.attributes[key], F32, lanes_of(v)))
        return v

    return combine(F32, function, body.rows[node.inputs[0]])


def affine_row(body: Body, node: Node) -> Row:
    """``gain x + bias``."""
    gain, bias = (body.constant(node.tensors[role]) for role in ("gain", "bias"))
    return gain * body.rows[node.inputs[0]] + bias


def scale_row(body: Body, node: Node) -> Row:
    """``factor x``."""
    return body.rows[node.inputs[0]] * number(node.attributes["factor"], F32)


def mod_relu(body: Body, node: Node) -> Row:
    """``sgn(x) max(|x| + b, 0)``."""
    x, bias = body.rows[node.inputs[0]], body.constant(node.tensors["bias"])

    def value(v: Expr, b: Expr) -> Expr:
        zero = constant(0.0, F32, lanes_of(v))
        grown = tirx.Max(tirx.Max(v, zero - v) + b, zero)
        return tirx.Select(v > zero, grown, tirx.Select(v < zero, zero - grown, zero))

    return combine(F32, value, x, bias)


def sigmoid_row(body: Body, node: Node) -> Row:
    """:func:`sigmoid`."""
    return combine(F32, sigmoid, body.rows[node.inputs[0]])


def tanh_row(body: Body, node: Node) -> Row:
    """:func:`tanh`."""
    return combine(F32, tanh, body.rows[node.inputs[0]])


def sigmoid(x: Expr) -> Expr:
    """``1 / (1 + exp(-x))``."""
    one = constant(1.0, F32, lanes_of(x))
    return one / (one + exponential(constant(0.0, F32, lanes_of(x)) - x))


def tanh(x: Expr) -> Expr:
    """``2 sigmoid(2 x) - 1``: absolute error below 2**-22."""
    lanes = lanes_of(x)
    return constant(2.0, F32, lanes) * sigmoid(constant(2.0, F32, lanes) * x) - constant(1.0, F32, lanes)


def exponential(x: Expr) -> Expr:
    """``exp(x)`` without a call, relative error about 2e-7.

    ``x = n ln 2 + r`` with |r| <= ln(2)/2; the Taylor polynomial of degree 6 leaves r^7 / 5040 < 1.2e-7, and 2^n is
    written into the exponent's bits.
    """
    lanes = lanes_of(x)
    x = tirx.Min(tirx.Max(x, constant(-87.0, F32, lanes)), constant(87.0, F32, lanes))
    n = tirx.floor(x * constant(1 / math.log(2), F32, lanes) + constant(0.5, F32, lanes))
    # ln 2 in two parts: the first has few bits, so that n times it is exact.
    r = x - n * constant(0.693359375, F32, lanes) + n * constant(0.693359375 - math.log(2), F32, lanes)
    y = constant(1 / 720, F32, lanes)
    for k in range(5, -1, -1):
        y = y * r + constant(1 / math.factorial(k), F32, lanes)
    exponent = (cast(n, "int32") + constant(127, "int32", lanes)) << constant(23, "int32", lanes)
    return y * tirx.reinterpret(vector(F32, lanes), exponent)


def norm(ops: RowOps, op: str, x: Row, length: int, gamma: Row, beta: Row, epsilon: float) -> Row:
    """LayerNorm, or MadNorm: ``gamma * (x - mean) / (mean|x - mean| + epsilon) + beta``."""
    per_element = number(1.0 / length, F32)
    centered = x - ops.row_sum(x) * per_element
    if op == "mad_norm":
        spread = ops.row_sum(ops.abs(centered)) * per_element + number(epsilon, F32)
        inverse = combine(F32, lambda s: constant(1.0, F32, lanes_of(s)) / s, spread)
    else:
        variance = ops.row_sum(centered * centered) * per_element + number(epsilon, F32)
        inverse = combine(F32, lambda s: constant(1.0, F32, lanes_of(s)) / tirx.sqrt(s), variance)
    return centered * inverse * gamma + beta
