"""What each operation becomes, looked up by name: one step's operations here, those of whole sequences in ``plan``."""

from __future__ import annotations

from collections.abc import Mapping

from deploy_tvm.codegen.body import Body, Operation
from deploy_tvm.codegen.ops import attention, curves, elementwise, float_ops, norms
from deploy_tvm.codegen.ops.multibit import multibit
from deploy_tvm.codegen.ops.top import top
from deploy_tvm.codegen.rows import Row
from irnn.errors import IrnnError
from irnn.program import Node
from irnn.program.ops import OPS


def _linear(body: Body, node: Node) -> Row:
    return body.matvec(node)


_BOTH = {
    "linear": Operation(_linear, in_memory=1, stored=True),
    "slice": Operation(elementwise.slice_row, cheap=True),
    "concat": Operation(elementwise.concat, cheap=True),
    "flatten": Operation(elementwise.same, cheap=True),
    "attention_weights": Operation(attention.weights, in_memory=1, stored=True),
    "attention_context": Operation(attention.context),
}
OPERATIONS: dict[str, Mapping[str, Operation]] = {
    "integer": _BOTH
    | {
        "requantize": Operation(elementwise.requantize, elementwise=True),
        "residual": Operation(elementwise.residual),
        "pwl": Operation(elementwise.pwl, elementwise=True),
        "complement": Operation(elementwise.complement, elementwise=True),
        "minimum": Operation(elementwise.minimum),
        "multibit": Operation(multibit, in_memory=1),
        "top": Operation(top, in_memory=1, stored=True),
        "mad_norm": Operation(norms.integer_norm, in_memory=1),
        "layer_norm": Operation(norms.integer_norm, in_memory=1),
    },
    "float": _BOTH
    | {
        "add": Operation(float_ops.add),
        "multiply": Operation(float_ops.multiply),
        "complement": Operation(float_ops.complement, elementwise=True),
        "minimum": Operation(elementwise.minimum),
        "subtract": Operation(float_ops.subtract),
        "relu": Operation(float_ops.relu_row, elementwise=True),
        "affine": Operation(float_ops.affine_row, elementwise=True),
        "clamp": Operation(float_ops.clamp_row, elementwise=True),
        "scale": Operation(float_ops.scale_row, elementwise=True),
        "mod_relu": Operation(float_ops.mod_relu, elementwise=True),
        "sigmoid": Operation(float_ops.sigmoid_row, elementwise=True),
        "tanh": Operation(float_ops.tanh_row, elementwise=True),
        "curve": Operation(curves.curve_row, elementwise=True),
        "mad_norm": Operation(norms.float_norm, in_memory=1),
        "layer_norm": Operation(norms.float_norm, in_memory=1),
    },
}


# What knows the batch, the time or a table: no operation of one step.
OF_SEQUENCES = (
    "embedding", "scaled_embedding", "mask", "patches", "subsample", "last", "shorten", "step", "repeat", "max_pool",
    "mean_pool", "time_mean", "time_max", "softmax_mean",
)  # fmt: skip
GENERIC = Operation(elementwise.by_its_text)


def of_kind(kind: str) -> Mapping[str, Operation]:
    """The operations of one step in programs of ``kind``: "integer" or "float".

    An integer operation without an emitter of its own is generic: its text, element by element.
    """
    if kind not in OPERATIONS:
        raise IrnnError(f"a program of kind {kind!r} cannot be compiled; the kinds are {', '.join(OPERATIONS)}")
    if kind == "float":
        return OPERATIONS[kind]
    texts = [name for name, operation in OPS.items() if operation.integer_programs and name not in OF_SEQUENCES]
    return {**dict.fromkeys(texts, GENERIC), **OPERATIONS[kind]}
