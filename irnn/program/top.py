"""A program whose output is the best of its logits, for callers who do not want all of a large vocabulary's."""

from __future__ import annotations

from dataclasses import replace

from irnn.errors import IrnnError
from irnn.program.graph import Graph, Node, Scan, Value

# Where the metadata say that the outputs are those of a mixture of softmaxes.
MIXED = "mixed"

Parts = tuple[tuple[str, ...], dict[str, Value], tuple[Node | Scan, ...]]


def with_top(program: Graph, count: int) -> Parts:
    """(outputs, values, nodes) of ``program`` where only its ``count`` best logits leave it, see ``Program.top``."""
    if program.kind != "integer":
        raise IrnnError(
            f"a {program.kind} program has no top: its logits are no integers; take that of the integer one"
        )
    if MIXED in program.metadata:
        raise IrnnError(
            "the program is a mixture of softmaxes, mixed in float: no top of its integers is that of the mixture; "
            "take all of its outputs (irnn.metrics.scores)"
        )
    if len(program.outputs) != 1:
        raise IrnnError(f"the program has {len(program.outputs)} outputs; top takes one of one output, its logits")
    (name,) = program.outputs
    logits = program.values.get(name)
    if logits is None or logits.dtype != "int32" or len(logits.shape) != 1:
        said = "an input" if logits is None else f"{logits.dtype} {list(logits.shape)}"
        raise IrnnError(f"the output {name} is {said}; top takes int32 logits, one row a step")
    (size,) = logits.shape
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= size:
        raise IrnnError(f"top {count!r}: take a whole number from 1 to {size}, the number of logits")
    best, values, ids = f"{name}.top", f"{name}.best", f"{name}.ids"
    made = {
        best: Value("int32", (2 * count,), axes=logits.axes),
        values: replace(logits, shape=(count,), low=None, high=None),
        ids: Value("int32", (count,), axes=logits.axes),
    }
    nodes = (
        Node("top", (name,), best, {"count": count}),
        Node("slice", (best,), values, {"start": 0, "stop": count}),
        Node("slice", (best,), ids, {"start": count, "stop": 2 * count}),
    )
    return (values, ids), {**program.values, **made}, (*program.nodes, *nodes)
