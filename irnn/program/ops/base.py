"""What an operation of a program is: a proof of its range, its evaluation, and a line of documentation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from irnn.program.graph import LENGTH_MAX, Node, Tensor, Value
from irnn.program.windows import Window

Array = Any
Range = tuple[int, int]
# What version 1 of the program format knows, for ever: a program with any other operation is written as version 2.
VERSION_1 = frozenset({
    "embedding", "linear", "requantize", "add", "multiply", "pwl", "mad_norm", "layer_norm", "slice", "concat",
    "residual", "mask", "shorten", "subsample", "patches", "flatten", "attention_weights", "attention_context",
    "relu", "sigmoid", "tanh",
})  # fmt: skip


@dataclass(frozen=True)
class Operand:
    """What a proof knows of one of an operation's inputs: its name, its declared form and its proved range."""

    name: str
    value: Value
    low: int
    high: int

    @property
    def range(self) -> Range:
        """Smallest and largest integer."""
        return self.low, self.high

    @property
    def magnitude(self) -> int:
        """The largest absolute value."""
        return max(abs(self.low), abs(self.high))


class Operation(ABC):
    """One operation.  Without a proof of its range and an evaluation it cannot be made, so it cannot be registered.

    ``name`` is what a node's ``op`` says, ``documentation`` one line with the attributes in parentheses and the tensors
    in brackets.  ``integer_programs`` and ``float_programs`` say where it exists.
    """

    name: str
    documentation: str
    integer_programs = True
    float_programs = True

    @abstractmethod
    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """(smallest and largest integer of the output, what is wrong with the node): an empty list proves it.

        inputs: in the node's order.  tensors: the node's constants by their roles.  A problem is one line that names
        the node or the constant.
        """

    @abstractmethod
    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """The output, of ``dtype``, by the text of ``fixed_point`` on the namespace ``ops``.

        tensors: what :meth:`constants` made, by their roles.
        """

    def constants(
        self, ops: Any, node: Node, values: Mapping[str, Value], tensors: Mapping[str, Tensor], device: Any
    ) -> dict[str, Array]:
        """The node's constants by their roles, made ready once for the namespace ``ops``.  values: the program's."""
        return {role: ops.constant(tensor.data, device) for role, tensor in tensors.items()}

    def format_version(self, node: Node, values: Mapping[str, Value]) -> int:
        """The first version of the program format that knows the operation as this node uses it."""
        return 1 if self.name in VERSION_1 else 2


class FloatOperation(Operation):
    """An operation of float programs alone: it has no integers, and what has no proof is refused."""

    integer_programs = False

    def range(self, node: Node, inputs: list[Operand], tensors: Mapping[str, Tensor]) -> tuple[Range, list[str]]:
        """Nothing is proved."""
        return (0, 0), [f"operation {node.op} ({node.output}) is not integer"]

    def apply(self, ops: Any, node: Node, inputs: list[Array], tensors: Mapping[str, Array], dtype: str) -> Array:
        """No executor of integers comes here: ``check`` and the interpreter refuse the program."""
        raise TypeError(f"{node.op} ({node.output}) has no integers")


def attribute_range(node: Node) -> Range:
    """The range to which the operation saturates: its attributes ``low`` and ``high``."""
    return node.attributes["low"], node.attributes["high"]


def length_problems(reader: str, lengths: Operand) -> list[str]:
    """Lengths stand between 1 and the longest sequence for which the reciprocals were counted."""
    if not 1 <= lengths.low <= lengths.high <= LENGTH_MAX:
        return [f"{reader}: the lengths {lengths.name} can leave 1..{LENGTH_MAX}"]
    return []


def sequence_problems(node: Node, x: Operand) -> list[str]:
    """The operation reads a sequence over time."""
    if not x.value.axes or not x.value.axes[0].lstrip("(").startswith("time"):
        return [f"{node.op} {node.output} reads {x.name}, which is no sequence over time"]
    return []


def row_problems(node: Node, x: Operand) -> list[str]:
    """The operation reads a sequence of rows."""
    if len(x.value.shape) != 1:
        return [f"{node.op} {node.output} reads {x.name} of the shape {x.value.shape}, which is no row"]
    return sequence_problems(node, x)


def window_problems(node: Node, x: Operand) -> list[str]:
    """The sizes of a window, and the bands that it reads."""
    window, channels, size = Window.of(node.attributes), node.attributes["channels"], x.value.shape[-1]
    found = row_problems(node, x)
    found += [f"{node.op} {node.output}: {problem}" for problem in window.problems()]
    if not found and (size % channels or window.places(1, size // channels) < 1):
        found.append(f"{node.op} {node.output}: {x.name} of {size} elements has too few bands of {channels} channels")
    return found
