"""What ``maximum`` becomes in a compiled step: an expression over rows, a register's worth at a time."""

from __future__ import annotations

from tvm import tirx

from deploy_tvm.codegen.body import Body
from deploy_tvm.codegen.rows import Row, combine
from irnn.program import Node


def maximum(body: Body, node: Node) -> Row:
    """The larger of two rows."""
    x, y = (body.rows[name] for name in node.inputs)
    return combine(body.dtype(node), tirx.Max, x, y)
