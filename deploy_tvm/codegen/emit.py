"""Lowers a program, integer or float, to an IRModule: a Relax function around one TIR function.

The Relax function ``run(inputs..., states [B, ...]...) -> (outputs..., states...)`` holds the constants and allocates
the results; the batch B and the axes of values (time, memory) are dynamic.  ``constants()`` gives the constants, for
callers that bring their own memory for the results and call
``kernel(inputs..., states..., constants..., outputs..., states...)``, which does in turn what the program's plan says.

It is one function because a call costs as much as thousands of multiplications, and a language model is called for each
word.  Sequences between the parts are [B, steps, room(size)]: rows padded so that registers are stored whole.  The
bands of a convolution lie in one row, without gaps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import tvm
from tvm import tirx

from deploy_tvm.codegen.constants import copy, room
from deploy_tvm.codegen.convolution import Border, Neighbourhoods
from deploy_tvm.codegen.emitter import Emitter, Expr, as_index, cast, lanes_of, load, prim_func
from deploy_tvm.codegen.interface import KERNEL, identifier
from deploy_tvm.codegen.kernels import Kernels
from deploy_tvm.codegen.loops import loop
from deploy_tvm.codegen.plan import plan
from deploy_tvm.codegen.products import product
from deploy_tvm.codegen.rows import Block, Row, buffer_row, combine, number, scalar
from deploy_tvm.codegen.sequences import Sequences
from deploy_tvm.codegen.softmax_mean import softmax_mean, unbroken
from deploy_tvm.codegen.steps import Copy, Give, Loop, Pick, Plan, Pool, Product, Reduce, Share, Store, Surround
from irnn.arithmetic import fixed_point
from irnn.program import Node, Program


def lower(program: Program, kernels: Kernels) -> tvm.IRModule:
    """The IRModule of ``program`` with the kernels of one target."""
    return emit(program, kernels, plan_of(program, kernels))


def plan_of(program: Program, kernels: Kernels) -> Plan:
    """The plan by which :func:`lower` lowers."""
    return plan(program, kernels.ops(Emitter()).lanes)


def emit(program: Program, kernels: Kernels, planned: Plan) -> tvm.IRModule:
    """The IRModule of a plan of ``program``."""
    s = Sequences(program, kernels)
    for name in planned.given:
        (s.memories if name in planned.memories else s.buffers)[name] = s.interface.inputs[name]
    s.lengths |= {name: (s.interface.inputs[given], made) for name, (given, made) in planned.lengths.items()}
    for step in planned.steps:
        EMITTERS[type(step)](s, step)
    buffers, arrays, places = s.constants.together()
    body = tirx.SeqStmt([*places, s.emitter.finish()])
    function = prim_func(s.interface.parameters(buffers), body, KERNEL)
    return s.interface.wrap(function, arrays)


def _copy(s: Sequences, step: Copy) -> None:
    name, value = step.name, s.program.inputs[step.name]
    buffer = s.allocate(name)
    with s.emitter.loop(s.rows(name), "row") as row:
        copy(s.emitter, value.shape[0], s.interface.inputs[name], s.at(name, row), buffer, s.at(name, row))
    if value.axes == ("memory",):
        s.memories[name] = s.buffers.pop(name)


def _store(s: Sequences, step: Store) -> None:
    with s.emitter.loop(s.rows(step.names[0]), "row") as row:
        s.fetch(step.names, step.fused, row)
        targets = {name: s.allocate(name) for name in step.names}
        s.body.store({name: s.storing([(target, s.at(name, row))]) for name, target in targets.items()})


def _surround(s: Sequences, step: Surround) -> None:
    emitter, node, (source,) = s.emitter, step.node, step.node.inputs
    value = s.program.values[source]
    border = Border.of(node, value.dtype)
    (above, below), (left, right) = border.steps, border.elements
    steps, elements = s.axes.size(value.axes[0]), math.prod(value.shape)
    shape = (s.batch, steps + (above + below), room(left + elements + right))
    buffer = emitter.alloc(shape, value.dtype, identifier(node.output))
    with emitter.loop(s.batch, "b") as b:
        for count, first in ((above, as_index(0)), (below, steps + above)):
            if not count:
                continue
            with emitter.loop(count, "t") as t:
                border.put(emitter, s.lanes, buffer, (b, first + t, as_index(0)), left + elements + right)
    with emitter.loop(s.rows(source), "row") as row:
        s.fetch([source], step.fused, row)
        b, t = s.position(row, value.axes[0])
        leading = (b, t + above)
        # In ascending order: what reaches too far is overwritten.
        border.put(emitter, s.lanes, buffer, (*leading, as_index(0)), left)

        def store(index: Expr, register: Expr) -> None:
            emitter.store(buffer, register, *leading, index + left)

        s.body.store({source: store})
        border.put(emitter, s.lanes, buffer, (*leading, as_index(left + elements)), right)
    s.neighbourhoods[node.output] = Neighbourhoods(node, buffer)


def _pool(s: Sequences, step: Pool) -> None:
    """Band after band, in ascending order: what reaches beyond one is overwritten by the next."""
    emitter, body, name = s.emitter, s.body, step.node.output
    value, channels = s.program.values[name], step.node.attributes["channels"]
    target = s.allocate(name)
    with emitter.loop(s.rows(name), "row") as row:
        b, t = s.position(row, value.axes[0])
        with emitter.loop(value.shape[0] // channels, "band") as band:
            taps = s.neighbourhoods[name].taps(b, t, band, channels)
            body.rows[name] = POOLS[step.node.op](s, step.node, taps)

            def store(index: Expr, register: Expr) -> None:
                emitter.store(target, register, *s.at(name, row), band * channels + index)

            body.store({name: store})
    del s.neighbourhoods[name]  # the pooled rows are what anything else reads


def _largest(s: Sequences, node: Node, taps: list[Row]) -> Row:
    return reduce(lambda p, q: combine(p.dtype, tirx.Max, p, q), taps)


def _total(s: Sequences, node: Node, taps: list[Row]) -> Row:
    """The sum of the taps without their zero point; in float their mean."""
    if s.program.kind == "float":
        return reduce(lambda p, q: p + q, taps) * number(1 / len(taps), "float32")
    zero_point = number(node.attributes["zero_point"], "int32")
    return reduce(lambda p, q: p + q, [s.body.ops.to(tap, "int32") - zero_point for tap in taps])


def _reduce(s: Sequences, step: Reduce) -> None:
    """A running total, or the largest, of each sequence; then what is made of it."""
    if step.node.op == "softmax_mean":
        softmax_mean(s, step)
        return
    emitter, body, node, (source, *lengths) = s.emitter, s.body, step.node, step.node.inputs
    value = s.program.values[source]
    steps, mean = s.axes.size(value.axes[0]), node.op == "time_mean"
    running = ("int64" if s.program.kind == "integer" else value.dtype) if mean else value.dtype
    total = emitter.alloc((room(value.shape[0]),), running, "total")
    target = s.allocate(node.output)
    with emitter.loop(s.batch, "b") as b:
        count = s.length(lengths[0], b) if lengths else steps
        with emitter.loop(count, "t") as t:
            s.fetch([source], step.fused, emitter.bind(b * steps + t, "from"))
            row = unbroken(s, source)
            if mean:
                row = body.ops.to(row, running) - number(node.attributes.get("zero_point", 0), running)

            def store(index: Expr, register: Expr) -> None:
                before = load(total, lanes_of(register), index)
                after = before + register if mean else tirx.Max(before, register)
                first = t.equal(0)
                condition = tirx.Broadcast(first, lanes_of(register)) if lanes_of(register) > 1 else first
                emitter.store(total, tirx.Select(condition, register, after), index)

            body.rows[node.output] = row
            body.store({node.output: store})
        made = buffer_row(total, value.shape[0], running)
        if mean and s.program.kind == "integer":
            made = fixed_point.mean(body.ops, made, scalar(emitter.hold(cast(count, "int64"))))
        elif mean:
            made = made * scalar(emitter.hold(tirx.const(1.0, "float32") / cast(count, "float32")))
        body.rows[node.output] = made
        body.store({node.output: s.storing([(target, (b,))])})


def _pick(s: Sequences, step: Pick) -> None:
    node, source = step.node, step.node.inputs[0]
    target = s.allocate(node.output)
    with s.emitter.loop(s.rows(node.output), "row") as row:
        chosen = PICKS[node.op](s, node, row)
        s.fetch([source], step.fused, s.emitter.bind(chosen, "from"))
        s.body.store({source: s.storing([(target, s.at(node.output, row))])})


def _every_so_many(s: Sequences, node: Node, row: Expr) -> Expr:
    (before,), (after,) = (s.program.values[name].axes for name in (node.inputs[0], node.output))
    b, t = s.position(row, after)
    return b * s.axes.size(before) + t * node.attributes["factor"]


def _last(s: Sequences, node: Node, row: Expr) -> Expr:
    """The last step, or the last of the valid ones."""
    source, *lengths = node.inputs
    (axis,) = s.program.values[source].axes
    steps = s.axes.size(axis)
    return row * steps + ((s.length(lengths[0], row) if lengths else steps) - 1)


def _step(s: Sequences, node: Node, row: Expr) -> Expr:
    """The step that is asked for; behind the end it is counted back."""
    (axis,), index = s.program.values[node.inputs[0]].axes, node.attributes["index"]
    steps = s.axes.size(axis)
    return row * steps + (index if index >= 0 else steps + index)


def _share(s: Sequences, step: Share) -> None:
    s.buffers[step.name] = s.buffers[step.source]


def _give(s: Sequences, step: Give) -> None:
    emitter, body, name = s.emitter, s.body, step.name
    result = s.interface.outputs[name]
    if name in s.lengths:
        with emitter.loop(s.batch, "b") as b:
            emitter.store(result, cast(s.length(name, b), s.program.values[name].dtype), b)
        return
    with emitter.loop(s.rows(name), "row") as row:
        s.fetch([name], step.fused, row)
        body.materialize([name])
        with emitter.loop(body.rows[name].size) as i:
            emitter.store(result, Block(emitter, i, 1).at(body.rows[name], 0), *s.at(name, row), i)


PICKS: dict[str, Callable[[Sequences, Node, Expr], Expr]] = {
    "subsample": _every_so_many,
    "last": _last,
    "step": _step,
}
POOLS: dict[str, Callable[[Sequences, Node, list[Row]], Row]] = {"max_pool": _largest, "mean_pool": _total}
EMITTERS: dict[type, Callable[[Sequences, Any], None]] = {
    Copy: _copy,
    Store: _store,
    Product: product,
    Surround: _surround,
    Pick: _pick,
    Pool: _pool,
    Reduce: _reduce,
    Share: _share,
    Loop: loop,
    Give: _give,
}
