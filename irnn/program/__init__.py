"""Programs as data: the graph, its proofs, the reference interpreter, storage, the listing."""

from irnn.program.graph import (
    DTYPES,
    FLOAT_OPS,
    FORMAT_VERSION,
    INTEGER_OPS,
    LENGTH_MAX,
    Inputs,
    Node,
    Program,
    Scan,
    State,
    States,
    Tensor,
    Value,
)

__all__ = [
    "DTYPES", "FLOAT_OPS", "FORMAT_VERSION", "INTEGER_OPS", "LENGTH_MAX", "Inputs", "Node", "Program", "Scan", "State",
    "States", "Tensor", "Value",
]  # fmt: skip
