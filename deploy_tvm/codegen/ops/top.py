"""The largest elements of a row and their places: one walk, as most elements are below all that is kept.

Registers are compared first, several at once: only where their largest element is above one that is kept are elements
looked at one by one.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
from tvm import tirx

from deploy_tvm.codegen.body import Body
from deploy_tvm.codegen.constants import room
from deploy_tvm.codegen.emitter import Emitter, Expr, cast, constant, load
from deploy_tvm.codegen.rows import Block, Row, buffer_row
from irnn.program import Node

BELOW_ALL = int(np.iinfo("int32").min) - 1  # of no int32: what is kept before anything is
REGISTERS = 8


def top(body: Body, node: Node) -> Row:
    """``fixed_point.top``: the best so far lie in order, a larger element moves those behind it on."""
    emitter, x, count = body.emitter, body.rows[node.inputs[0]], node.attributes["count"]
    assert isinstance(x.length, int)  # a row of logits
    best, places = emitter.alloc((count,), "int64", "best"), emitter.alloc((count,), "int32", "places")
    with emitter.loop(count) as k:
        emitter.store(best, constant(BELOW_ALL, "int64"), k)
        emitter.store(places, constant(0, "int32"), k)
    lanes = body.ops.lanes
    group = REGISTERS * lanes
    most = emitter.alloc((lanes,), "int32", "most")
    with emitter.loop(x.length // group) as g:
        block = Block(emitter, g * group, lanes)
        registers = [block.at(x, u * lanes) for u in range(REGISTERS)]
        emitter.store(most, reduce(tirx.Max, registers), 0)
        highest = reduce(tirx.Max, [load(most, 1, u) for u in range(lanes)])
        with emitter.when(load(best, 1, count - 1) < cast(highest, "int64")), emitter.loop(group) as i:
            _insert(emitter, x, g * group + i, best, places, count)
    whole = x.length // group * group
    with emitter.loop(x.length - whole) as i:
        _insert(emitter, x, i + whole, best, places, count)
    output = emitter.alloc((room(2 * count),), "int32", "top")
    with emitter.loop(count) as k:
        emitter.store(output, cast(load(best, 1, k), "int32"), k)
        emitter.store(output, load(places, 1, k), k + count)
    return buffer_row(output, 2 * count, "int32")


def _insert(emitter: Emitter, x: Row, i: Expr, best: tirx.Buffer, places: tirx.Buffer, count: int) -> None:
    """Element ``i`` takes its place among the best, where it has one."""
    value = emitter.hold(cast(Block(emitter, i, 1).at(x, 0), "int64"))
    with emitter.when(load(best, 1, count - 1) < value), emitter.loop(count) as turned:
        k = emitter.bind(count - 1 - turned, "k")
        with emitter.when(load(best, 1, k) < value):
            # Equal elements keep their order: the later one stops behind the earlier.
            before = emitter.bind(tirx.Max(k - 1, constant(0, "int64")))
            last = tirx.Or(k < 1, value <= load(best, 1, before))
            at = emitter.hold(tirx.Select(last, cast(i, "int32"), load(places, 1, before)))
            emitter.store(best, tirx.Select(last, value, load(best, 1, before)), k)
            emitter.store(places, at, k)
