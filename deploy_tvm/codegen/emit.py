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
from typing import Any

import tvm
from tvm import tirx

from deploy_tvm.codegen.constants import copy, room
from deploy_tvm.codegen.convolution import Border, Neighbourhoods
from deploy_tvm.codegen.emitter import Emitter, Expr, as_index, cast, prim_func
from deploy_tvm.codegen.interface import KERNEL, identifier
from deploy_tvm.codegen.kernels import Kernels
from deploy_tvm.codegen.loops import loop
from deploy_tvm.codegen.plan import Copy, Give, Loop, Pick, Plan, Product, Share, Store, Surround, plan
from deploy_tvm.codegen.products import product
from deploy_tvm.codegen.rows import Block
from deploy_tvm.codegen.sequences import Sequences
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
    s.lengths |= {name: (s.interface.inputs[given], factor) for name, (given, factor) in planned.lengths.items()}
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
    value, border = s.program.values[source], Border.of(node)
    steps, elements = s.axes.size(value.axes[0]), math.prod(value.shape)
    shape = (s.batch, steps + 2 * border.steps, room(elements + 2 * border.elements))
    buffer = emitter.alloc(shape, value.dtype, identifier(node.output))
    with emitter.loop(s.batch, "b") as b, emitter.loop(border.steps, "t") as t:
        for place in (t, t + steps + border.steps):
            border.put(emitter, s.lanes, buffer, (b, place, as_index(0)), elements + 2 * border.elements)
    with emitter.loop(s.rows(source), "row") as row:
        s.fetch([source], step.fused, row)
        b, t = s.position(row, value.axes[0])
        leading = (b, t + border.steps)
        # In ascending order: what reaches too far is overwritten.
        border.put(emitter, s.lanes, buffer, (*leading, as_index(0)), border.elements)

        def store(index: Expr, register: Expr) -> None:
            emitter.store(buffer, register, *leading, index + border.elements)

        s.body.store({source: store})
        end = as_index(border.elements + elements)
        border.put(emitter, s.lanes, buffer, (*leading, end), border.elements)
    s.neighbourhoods[node.output] = Neighbourhoods(node, buffer)


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


PICKS: dict[str, Callable[[Sequences, Node, Expr], Expr]] = {"subsample": _every_so_many, "last": _last}
EMITTERS: dict[type, Callable[[Sequences, Any], None]] = {
    Copy: _copy,
    Store: _store,
    Product: product,
    Surround: _surround,
    Pick: _pick,
    Share: _share,
    Loop: loop,
    Give: _give,
}
