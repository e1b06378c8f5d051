"""Attention over a memory whose length only a call knows: scores, softmax, weighted mean, on one step of one sequence.

The softmax and the division are ``fixed_point``'s text on rows.  The sum of weighted values is ours: rows lie
along a value's elements, the sum runs across places.
"""

from __future__ import annotations

from tvm import tirx

from deploy_tvm.codegen.body import Body, Memory
from deploy_tvm.codegen.emitter import Expr, as_index, cast, constant, load
from deploy_tvm.codegen.ops import elementwise, float_ops
from deploy_tvm.codegen.rows import SLACK, Block, Row, below, buffer_row, combine, number, whole_registers
from irnn.arithmetic import fixed_point
from irnn.program import Node

# Places summed in 32 bits: 128 * 65535 * 128 < 2**31.
PLACES = 128
# Registers of sums held at a time.
UNITS = 8


def weights(body: Body, node: Node) -> Row:
    """``attention_weights``: computed here, in memory; 0 from the memory's length to the last register's end."""
    emitter, ops = body.emitter, body.ops
    _, keys, lengths = node.inputs
    memory, length, dtype = body.memories[keys], body.lengths[lengths], body.program.values[node.output].dtype
    floating = body.program.kind == "float"
    size = (memory.places + SLACK,)
    scores = emitter.alloc(size, "float32" if floating else "int32", "score")
    # Padding needs no score: it is masked whatever its score is.
    with emitter.loop(length, "place") as place:
        products = _products(body, node, memory.row(place))
        emitter.store(scores, ops.row_sum(products).function(Block(emitter, 0, 1), 0), place)
    result = emitter.alloc(size, dtype, "weights")
    row = buffer_row(result, memory.places, dtype)

    def store(values: Row) -> None:
        whole, _ = whole_registers(0, memory.places, ops.lanes)
        with emitter.loop(whole) as i:
            emitter.store(result, Block(emitter, i * ops.lanes, ops.lanes).at(values, 0), i * ops.lanes)

    score, valid = buffer_row(scores, memory.places, str(scores.dtype)), below(length, memory.places)
    if floating:
        highest = ops.row_max(ops.where(valid, score, number(float_ops.LOWEST, "float32")))
        e = combine("float32", float_ops.exponential, score - highest)
        store(ops.where(valid, e, number(0.0, "float32")))
        inverse = combine("float32", lambda s: constant(1.0, "float32", s.ty.dtype.lanes) / s, ops.row_sum(row))
        store(row * inverse)
    else:
        table = body.program.tensors[node.tensors["table"]].data.astype("int64")
        factor = (body.constant(node.tensors[role]) for role in ("multiplier", "shift"))
        store(fixed_point.attention_weights(ops, score, valid, table, *factor))
    return row


def _products(body: Body, node: Node, key: Row) -> Row:
    """What adds up to the score of one place: ``weight * tanh(query + key)``."""
    ops, a = body.ops, node.attributes
    query, weight = body.rows[node.inputs[0]], body.constant(node.tensors["weight"])
    if body.program.kind == "float":
        return combine("float32", float_ops.tanh, key + query) * weight
    both_i16 = fixed_point.add(ops, key, query, a["low"], a["high"], "int16")
    tanh_i8 = elementwise.pwl_by_table(body, node, both_i16, a["tanh_shift"], a["tanh_low"], a["tanh_high"], "int8")
    return ops.to(tanh_i8, "int32") * ops.to(weight, "int32")


def context(body: Body, node: Node) -> Row:
    """``attention_context``: the sums are computed here, what divides them is lazy."""
    e, values = node.inputs
    weights, memory, ops = body.rows[e], body.memories[values], body.ops
    a, dtype = node.attributes, body.program.values[node.output].dtype
    if body.program.kind == "float":
        return _weighted_sums(body, weights, memory, "float32", "float32")
    total_i64 = ops.row_sum(ops.to(weights, "int64"))
    # sum(e (v - z)) = sum(e v) - z sum(e)
    sums_i64 = _weighted_sums(body, weights, memory, "int32", "int64")
    centred_i64 = sums_i64 - ops.to(a["zero_point_values"], "int64") * total_i64
    multiplier, shift = (body.constant(node.tensors[role]) for role in ("multiplier", "shift"))
    return fixed_point.weighted_mean(
        ops, centred_i64, total_i64, multiplier, shift, a["zero_point"], a["low"], a["high"], dtype
    )


def _weighted_sums(body: Body, weights: Row, memory: Memory, narrow: str, wide: str) -> Row:
    """The sum of weight * value over places, in memory; ``PLACES`` at a time in ``narrow``, all of them in ``wide``."""
    emitter, lanes = body.emitter, body.ops.lanes
    count = -(-memory.size // lanes)
    sums = emitter.alloc((count * lanes + SLACK,), wide, "sums")
    row = buffer_row(sums, memory.size, wide)

    def group(first: Expr, units: int) -> None:
        acc = [emitter.alloc((lanes,), narrow, "acc") for _ in range(units)]
        starts = [first + u * lanes for u in range(units)]
        for start in starts:
            emitter.store(sums, constant(0, wide, lanes), start)
        with emitter.loop(tirx.floordiv(memory.places + (PLACES - 1), as_index(PLACES)), "part") as part:
            begin = emitter.bind(part * PLACES, "begin")
            for buffer in acc:
                emitter.store(buffer, constant(0, narrow, lanes), 0)
            with emitter.loop(tirx.Min(as_index(PLACES), memory.places - begin), "place") as i:
                place = emitter.bind(begin + i, "place")
                e = emitter.bind(cast(Block(emitter, place, 1).at(weights, 0), narrow, lanes))
                for buffer, start in zip(acc, starts, strict=True):
                    value = cast(load(memory.buffer, lanes, memory.batch, place, start), narrow)
                    emitter.store(buffer, load(buffer, lanes, 0) + e * value, 0)
            for buffer, start in zip(acc, starts, strict=True):
                total = load(sums, lanes, start) + cast(load(buffer, lanes, 0), wide)
                emitter.store(sums, total, start)

    with emitter.loop(count // UNITS, "group") as g:
        group(emitter.bind(g * (UNITS * lanes), "first"), UNITS)
    if count % UNITS:
        group(as_index(count // UNITS * UNITS * lanes), count % UNITS)
    return row
