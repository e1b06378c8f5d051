"""What a statement of a compiled function belongs to, told by the line number in its debug information.

LLVM carries a statement's line through all of its passes, so that whoever counts executed instructions by line
(callgrind, ``perf annotate``) counts them by part: :mod:`deploy_tvm.static.profile`.
"""

from __future__ import annotations

from enum import IntEnum

from tvm.ir.base import SourceName, Span


class Part(IntEnum):
    """The parts of a step.  Line 0 is what TVM adds: the arguments' checks."""

    REST = 1
    PRODUCT = 2
    OUTPUT = 3
    OPERAND = 4
    REQUANTIZATION = 5
    TABLE = 6
    ELEMENTWISE = 7
    EMBEDDING = 8
    COPY = 9
    NORM = 10


# By the operation whose rows they are.
_PART_OF = {
    "requantize": Part.REQUANTIZATION,
    "residual": Part.REQUANTIZATION,
    "pwl": Part.TABLE,
    "embedding": Part.EMBEDDING,
    "scaled_embedding": Part.EMBEDDING,
    "mad_norm": Part.NORM,
    "layer_norm": Part.NORM,
}

# They compute nothing themselves, or say what they do.
_NONE_OF_THEIR_OWN = ("linear", "slice", "concat", "flatten")

_SOURCE = SourceName("parts")
_SPANS = {part: Span(_SOURCE, int(part), int(part), 0, 0) for part in Part}


def part_of(op: str) -> Part | None:
    """What the rows of an operation belong to; None: to what reads them."""
    return None if op in _NONE_OF_THEIR_OWN else _PART_OF.get(op, Part.ELEMENTWISE)


def span(part: Part) -> Span:
    """The place in the source that stands for ``part``."""
    return _SPANS[part]
