"""Every n-th step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range


class Subsample(Operation):
    """See ``documentation``."""

    name = "subsample"
    documentation = "sequence -> every (factor)-th step of it, the first included"

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """That of the input."""
        return inputs[0].range, []

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """A view along time."""
        return inputs[0][:, :: node.attributes["factor"]]
