"""Run-time codes of an activation: ``fixed_point``'s text on a row whose elements are read several times."""

from __future__ import annotations

from deploy_tvm.codegen.body import Body
from deploy_tvm.codegen.rows import Row
from irnn.arithmetic import fixed_point
from irnn.program import Node


def multibit(body: Body, node: Node) -> Row:
    """``fixed_point.multibit``: codes and coefficients are found here, their sum is lazy."""
    x, a = body.rows[node.inputs[0]], node.attributes
    return fixed_point.multibit(body.ops, x, x.length, a["zero_point"], a["codes"])
