"""Norms over equal parts of a row: ``fixed_point``'s text, or the float baseline's."""

from __future__ import annotations

from collections.abc import Callable

from deploy_tvm.codegen.body import Body
from deploy_tvm.codegen.ops import float_ops
from deploy_tvm.codegen.rows import Row, join, number, part
from irnn.arithmetic import fixed_point
from irnn.program import Node

Part = Callable[[Row, int, Row, Row, int], Row]


def integer_norm(body: Body, node: Node) -> Row:
    """``fixed_point.mad_norm`` or ``fixed_point.layer_norm`` of each group."""
    a, function, dtype = node.attributes, getattr(fixed_point, node.op), body.dtype(node)

    def norm(row: Row, length: int, gamma: Row, beta: Row, group: int) -> Row:
        multiplier, shift = (_per_group(body, node, role, group) for role in ("multiplier", "shift"))
        return function(body.ops, row, length, gamma, beta, multiplier, shift, a["low"], a["high"], dtype)

    return _grouped(body, node, norm)


def float_norm(body: Body, node: Node) -> Row:
    """The float baseline's norm of each group."""
    epsilon = node.attributes["epsilon"]

    def norm(row: Row, length: int, gamma: Row, beta: Row, group: int) -> Row:
        return float_ops.norm(body.ops, node.op, row, length, gamma, beta, epsilon)

    return _grouped(body, node, norm)


def _grouped(body: Body, node: Node, norm: Part) -> Row:
    x, groups = body.rows[node.inputs[0]], node.attributes["groups"]
    length = x.size // groups
    parts = []
    for g in range(groups):
        start, stop = g * length, (g + 1) * length
        row = part(x, start, stop)
        gamma, beta = (body.constant(node.tensors[role], start, stop) for role in ("gamma", "beta"))
        parts.append(norm(row, length, gamma, beta, g))
    # A group's sums are numbers of their own: join() keeps registers from lying across groups.
    return join([Row(length, p.dtype, p.function, p.breaks) for p in parts])


def _per_group(body: Body, node: Node, role: str, group: int) -> Row:
    data = body.program.tensors[node.tensors[role]].data.reshape(-1)
    index = group * (data.size // node.attributes["groups"])
    return number(int(data[index]), str(data.dtype))
