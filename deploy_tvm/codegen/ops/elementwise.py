"""Integer operations whose text in ``irnn.arithmetic.fixed_point`` is evaluated over rows, element by element."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.body import Body
from deploy_tvm.codegen.row_ops import Table, Term
from deploy_tvm.codegen.rows import Row, combine, join, number, part
from irnn.program import Node
from irnn.program.ops import OPS


def by_its_text(body: Body, node: Node) -> Row:
    """What ``irnn.program.ops`` says the operation is, evaluated over rows instead of arrays."""
    inputs = [body.rows[name] for name in node.inputs]
    tensors = {role: body.constant(name) for role, name in node.tensors.items()}
    return OPS[node.op].apply(body.ops, node, inputs, tensors, body.dtype(node))


def requantize(body: Body, node: Node) -> Row:
    """``fixed_point.requantize``, by the target's instructions."""
    a = node.attributes
    terms = [_term(body, node, k, name) for k, name in enumerate(node.inputs)]
    return body.ops.requantize(terms, a["zero_point"], a["low"], a["high"], body.dtype(node))


def residual(body: Body, node: Node) -> Row:
    """``fixed_point.residual``: a requantization of what stands above each term's zero point."""
    a, terms = node.attributes, []
    for k, (name, zero_point) in enumerate(zip(node.inputs, a["zero_points"], strict=True)):
        term, zero = _term(body, node, k, name), number(zero_point, "int32")
        terms.append(
            replace(term, x=body.ops.to(term.x, "int32") - zero, low=term.low - zero_point, high=term.high - zero_point)
        )
    return body.ops.requantize(terms, a["zero_point"], a["low"], a["high"], body.dtype(node))


def complement(body: Body, node: Node) -> Row:
    """``-1 - x`` on int8, which has every result: the primed value of a sigmoid gate becomes 255 minus it."""
    (x,) = (body.rows[name] for name in node.inputs)
    return number(-1, body.dtype(node)) - x


def minimum(body: Body, node: Node) -> Row:
    """The smaller of two rows, in one instruction."""
    a, b = (body.rows[name] for name in node.inputs)
    return combine(body.dtype(node), tirx.Min, a, b)


def pwl(body: Body, node: Node) -> Row:
    """``fixed_point.pwl``."""
    a = node.attributes
    return pwl_by_table(body, node, body.rows[node.inputs[0]], a["shift"], a["low"], a["high"], body.dtype(node))


def pwl_by_table(body: Body, node: Node, x: Row, shift: int, low: int, high: int, dtype: str) -> Row:
    """``fixed_point.pwl`` of ``x`` by the table of ``node``."""
    tensors = (body.program.tensors[node.tensors[role]].data for role in ("knots", "slopes", "intercepts"))
    return body.ops.pwl(x, Table(*(data.astype(np.int64) for data in tensors)), shift, low, high, dtype)


def slice_row(body: Body, node: Node) -> Row:
    """Elements start..stop."""
    return part(body.rows[node.inputs[0]], node.attributes["start"], node.attributes["stop"])


def concat(body: Body, node: Node) -> Row:
    """Rows joined."""
    return join([body.rows[name] for name in node.inputs])


def same(body: Body, node: Node) -> Row:
    """A value in another shape: its rows have no gaps."""
    return body.rows[node.inputs[0]]


def _term(body: Body, node: Node, k: int, name: str) -> Term:
    """Term number k of a sum."""
    names = {role: node.tensors[f"{role}_{k}"] for role in ("multiplier", "shift")}
    multiplier, shift = (body.program.tensors[names[role]].data.reshape(-1) for role in ("multiplier", "shift"))

    def constant(role: str, array: np.ndarray) -> Row:
        return body.known(names.get(role) or f"{names['shift']}|{role}", array)

    return Term(body.rows[name], multiplier, shift, *body.ranges[name], constant)
