"""The operations of programs, one file each: ``OPS[name]`` proves, evaluates and documents one.

Every integer operation is a function of ``irnn.arithmetic.fixed_point``.  ``check``, the interpreter, the listing,
storage and the lowering look operations up here; an unknown name is refused with the list of known ones.
"""

from __future__ import annotations

from collections.abc import Iterable

from irnn.errors import IrnnError
from irnn.program.ops.activations import Clamp, Curve, Relu, Scale, Sigmoid, Tanh
from irnn.program.ops.add import Add
from irnn.program.ops.affine import Affine
from irnn.program.ops.attention_context import AttentionContext
from irnn.program.ops.attention_weights import AttentionWeights
from irnn.program.ops.base import Operand, Operation, Range
from irnn.program.ops.complement import Complement
from irnn.program.ops.concat import Concat
from irnn.program.ops.embedding import Embedding
from irnn.program.ops.flatten import Flatten
from irnn.program.ops.last import Last
from irnn.program.ops.linear import Linear
from irnn.program.ops.mask import Mask
from irnn.program.ops.minimum import Minimum
from irnn.program.ops.mod_relu import ModRelu
from irnn.program.ops.multibit import Multibit
from irnn.program.ops.multiply import Multiply
from irnn.program.ops.norms import LayerNorm, MadNorm
from irnn.program.ops.patches import Patches
from irnn.program.ops.pools import MaxPool, MeanPool
from irnn.program.ops.pwl import Pwl
from irnn.program.ops.repeat import Repeat
from irnn.program.ops.requantize import Requantize
from irnn.program.ops.residual import Residual
from irnn.program.ops.scaled_embedding import ScaledEmbedding
from irnn.program.ops.shorten import Shorten
from irnn.program.ops.slice import Slice
from irnn.program.ops.softmax_mean import SoftmaxMean
from irnn.program.ops.step import Step
from irnn.program.ops.subsample import Subsample
from irnn.program.ops.subtract import Subtract
from irnn.program.ops.time_max import TimeMax
from irnn.program.ops.time_mean import TimeMean
from irnn.program.ops.top import Top

__all__ = ["FLOAT_OPS", "INTEGER_OPS", "OPS", "Operand", "Operation", "Range", "Registry", "table"]


class Registry(dict[str, Operation]):
    """Operations by their names; another name is an :class:`IrnnError` that lists them."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        super().__init__()
        for operation in operations:
            if operation.name in self:
                raise ValueError(f"two operations are called {operation.name!r}")
            self[operation.name] = operation

    def __missing__(self, name: str) -> Operation:
        raise IrnnError(f"unknown operation {name!r}; known are {', '.join(self)}")


OPS = Registry(
    (
        Embedding(), Linear(), Requantize(), Add(), Multiply(), Pwl(), MadNorm(), LayerNorm(), Slice(), Concat(),
        Residual(), Mask(), Shorten(), Subsample(), Patches(), Flatten(), AttentionWeights(), AttentionContext(),
        Complement(), Last(), ScaledEmbedding(), Multibit(), Step(), Subtract(), MaxPool(), MeanPool(), TimeMean(),
        TimeMax(), Repeat(), Affine(), ModRelu(), Minimum(), SoftmaxMean(), Top(),
        Relu(), Clamp(), Scale(), Sigmoid(), Tanh(), Curve(),
    )
)  # fmt: skip
INTEGER_OPS = tuple(name for name, operation in OPS.items() if operation.integer_programs)
FLOAT_OPS = tuple(name for name, operation in OPS.items() if operation.float_programs)


def table() -> str:
    """The operations as a Markdown table, which stands in ``docs/operations.md``."""
    lines = ["| operation | programs | what it computes (attributes) [tensors] |", "|---|---|---|"]
    for name, operation in OPS.items():
        kinds = [
            kind
            for kind, there in (("integer", operation.integer_programs), ("float", operation.float_programs))
            if there
        ]
        lines.append(f"| `{name}` | {', '.join(kinds)} | {operation.documentation} |")
    return "\n".join(lines)
