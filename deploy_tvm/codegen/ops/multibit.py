"""Run-time codes of an activation: ``run_time_codes``'s text on a row whose elements are read several times."""

from __future__ import annotations

from deploy_tvm.codegen.body import Body
from deploy_tvm.codegen.rows import Row
from irnn.arithmetic import run_time_codes
from irnn.program import Node


def multibit(body: Body, node: Node) -> Row:
    """``run_time_codes.multibit``: codes and coefficients are found here, their sum is lazy."""
    x, a = body.rows[node.inputs[0]], node.attributes
    return run_time_codes.multibit(body.ops, x, x.length, a["zero_point"], a["codes"])
