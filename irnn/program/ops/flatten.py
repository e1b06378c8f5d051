"""Bands and channels as one axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irnn.program.graph import Node, Tensor
from irnn.program.ops.base import Array, Operand, Operation, Range


class Flatten(Operation):
    """See ``documentation``."""

    name = "flatten"
    documentation = "`[bands, channels]` -> `[bands * channels]`"

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """That of the input."""
        return inputs[0].range, []

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """The last two axes joined."""
        return inputs[0].reshape(*inputs[0].shape[:-2], -1)
