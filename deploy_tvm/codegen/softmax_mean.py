"""Attention pooling: two walks along a sequence, one for the best score, one that adds up what the steps weigh."""

from __future__ import annotations

from tvm import tirx

from deploy_tvm.codegen.constants import room
from deploy_tvm.codegen.emitter import Expr, cast, lanes_of, load
from deploy_tvm.codegen.ops import float_ops
from deploy_tvm.codegen.rows import Block, Row, buffer_row, combine, scalar
from deploy_tvm.codegen.sequences import Sequences
from deploy_tvm.codegen.steps import Reduce
from irnn.arithmetic import fixed_point


def unbroken(s: Sequences, name: str) -> Row:
    """A row whose registers may be added to memory: none reaches into the next segment."""
    row = s.body.rows[name]
    if not row.breaks:
        return row
    buffer = s.emitter.alloc((room(row.length),), row.dtype, "row")
    s.body.store({name: s.storing([(buffer, ())])})
    return buffer_row(buffer, row.length, row.dtype)


def softmax_mean(s: Sequences, step: Reduce) -> None:
    """``fixed_point.attention_weights`` a step at a time, then ``fixed_point.weighted_mean`` of the sums."""
    emitter, body, node, (score, values, *lengths) = s.emitter, s.body, step.node, step.node.inputs
    floating = s.program.kind == "float"
    narrow, wide = ("float32", "float32") if floating else ("int32", "int64")
    size, steps = s.program.values[values].shape[0], s.axes.size(s.program.values[values].axes[0])
    best, total = emitter.alloc((1,), narrow, "best"), emitter.alloc((1,), wide, "total")
    sums, target = emitter.alloc((room(size),), wide, "sums"), s.allocate(node.output)
    with emitter.loop(s.batch, "b") as b:
        count = s.length(lengths[0], b) if lengths else steps

        def scored(t: Expr, b: Expr = b) -> Expr:
            return emitter.bind(cast(load(s.buffers[score], 1, b, t, 0), narrow), "score")

        with emitter.loop(count, "t") as t:
            found = scored(t)
            emitter.store(best, tirx.Select(t.equal(0), found, tirx.Max(load(best, 1, 0), found)), 0)
        with emitter.loop(count, "t") as t:
            e = emitter.bind(_weight(s, step, load(best, 1, 0) - scored(t)), "e")
            s.fetch([values], step.fused, emitter.bind(b * steps + t, "from"))
            row = body.ops.to(unbroken(s, values), narrow)
            if not floating:
                row = row - body.ops.to(node.attributes["zero_point_values"], narrow)
            first = t.equal(0)
            before = tirx.Select(first, tirx.const(0, wide), load(total, 1, 0))
            emitter.store(total, before + cast(e, wide), 0)

            def store(index: Expr, register: Expr, first: Expr = first) -> None:
                lanes = lanes_of(register)
                condition = tirx.Broadcast(first, lanes) if lanes > 1 else first
                after = load(sums, lanes, index) + register
                emitter.store(sums, tirx.Select(condition, register, after), index)

            # Within 65535 * 255 < 2**31 before it widens.
            body.rows[node.output] = body.ops.to(row * scalar(e), wide)
            body.store({node.output: store})
        body.rows[node.output] = _mean(s, step, buffer_row(sums, size, wide), emitter.hold(load(total, 1, 0)))
        body.store({node.output: s.storing([(target, (b,))])})


def _weight(s: Sequences, step: Reduce, distance: Expr) -> Expr:
    """What a step weighs whose score lies so far below the best: int32, or float32."""
    if s.program.kind == "float":
        return float_ops.exponential(tirx.const(0.0, "float32") - distance)
    table = s.program.tensors[step.node.tensors["table"]].data.astype("int64")
    multiplier, shift = (s.body.constant(step.node.tensors[role]) for role in ("multiplier", "shift"))
    ops = s.body.ops
    far = fixed_point.rescale(ops, scalar(s.emitter.hold(distance)), multiplier, shift)
    entry = ops.take(table, ops.to(ops.clip(far, 0, fixed_point.EXP_ENTRIES - 1), "int32"))
    return Block(s.emitter, 0, 1).at(ops.to(entry, "int32"), 0)


def _mean(s: Sequences, step: Reduce, sums: Row, total: Expr) -> Row:
    if s.program.kind == "float":
        return combine("float32", lambda v, n: v / n, sums, scalar(total))
    a, node = step.node.attributes, step.node
    multiplier, shift = (s.body.constant(node.tensors[role]) for role in ("multiplier_mean", "shift_mean"))
    dtype = s.program.values[node.output].dtype
    return fixed_point.weighted_mean(
        s.body.ops, sums, scalar(total), multiplier, shift, a["zero_point"], a["low"], a["high"], dtype
    )
