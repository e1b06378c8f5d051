"""The program: a recurrent network as a short list of operations over named values, integer-only or float.

The network's wiring is written once, in ``irnn.cells`` and ``irnn.models``; ``irnn.export`` records it as a
:class:`Program`.  The interpreter executes a program with NumPy integers, ``deploy_tvm`` lowers the same program, and
``python -m irnn.program describe FOLDER`` prints it.  The float baseline is the same class with ``kind="float"``.

Shapes.  A value's ``shape`` leaves out the leading axes: outside a scan every value is a sequence ``[batch, time,
*shape]``, inside a scan's body ``[batch, *shape]``.  One step is a sequence of length one: there is one definition.

Operations (``attributes`` in parentheses, tensors in brackets; every integer one is a function of ``fixed_point``):

=============  ======================================================================================================
embedding      ids -> rows of [table]
linear         x -> ``[weight] x + [bias]``: int32 accumulators; the bias holds the zero-point correction
requantize     int32 values -> ``clamp(sum rescale(x_k, [multiplier_k], [shift_k]) + zero_point)`` (zero_point, low,
               high)
add            a + b at one scale, saturating (low, high)
multiply       (a - zero_point_a) * (b - zero_point_b), int32 (zero_point_a, zero_point_b)
pwl            piecewise-linear [knots], [slopes], [intercepts] (function, shift, low, high)
mad_norm       MadNorm over each of ``groups`` equal parts [gamma], [beta], [multiplier], [shift] (groups, low, high)
layer_norm     the same with the standard deviation, by an integer square root
slice          elements start..stop of the last axis (start, stop)
concat         values joined along the last axis
sigmoid, tanh  float programs only
=============  ======================================================================================================

A float program has no ``requantize`` (a sum of products is ``add``) and no ``pwl``; its norms carry ``epsilon``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from irnn.errors import IrnnError

FORMAT_VERSION = 1
INTEGER_OPS = (
    "embedding", "linear", "requantize", "add", "multiply", "pwl", "mad_norm", "layer_norm", "slice", "concat",
)  # fmt: skip
FLOAT_OPS = (
    "embedding", "linear", "add", "multiply", "sigmoid", "tanh", "mad_norm", "layer_norm", "slice", "concat",
)  # fmt: skip
DTYPES = ("int8", "uint16", "int16", "int32", "float32")


@dataclass(frozen=True)
class Value:
    """A named tensor: ``dtype``, ``shape`` without batch and time, and what its integers mean.

    ``scale`` and ``zero_point`` are for readers (and for the logits' scale); no operation computes with them.  A value
    whose elements have several scales (one a row or gate) has ``scale=None``.  ``low..high`` is the proved range.
    """

    dtype: str
    shape: tuple[int, ...]
    scale: float | None = None
    zero_point: int = 0
    low: int | None = None
    high: int | None = None


@dataclass(frozen=True)
class State:
    """A recurrent state carried between calls: int8 hidden states start at their zero point, not at 0."""

    dtype: str
    shape: tuple[int, ...]
    initial: int = 0


@dataclass(frozen=True)
class Tensor:
    """A constant.  ``bits`` is the width of its integers; 4- and 2-bit weights are packed on disk, never in memory."""

    data: np.ndarray
    bits: int

    @property
    def storage_bits(self) -> int:
        """Bits that one element takes on disk: 2, 4 or the dtype's own width."""
        if self.data.dtype == np.int8 and self.bits <= 4:
            return 2 if self.bits <= 2 else 4
        return 8 * self.data.dtype.itemsize


@dataclass(frozen=True)
class Node:
    """One operation: value names in, one value name out; ``tensors`` maps a parameter's role to a constant's name."""

    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Scan:
    """A loop over time.  ``reverse`` runs from the last step to the first (the backward half of a BiLSTM).

    ``sequences`` maps body values to the sequences that they walk along, ``states`` maps a program state to the body
    values that hold it (before, after a step), ``outputs`` maps outer sequences to the body values that they collect.
    """

    sequences: dict[str, str]
    states: dict[str, tuple[str, str]]
    outputs: dict[str, str]
    body: tuple[Node, ...]
    reverse: bool = False


@dataclass
class Program:
    """A recurrent network as data.  ``kind`` is "integer" or "float"; ``metadata`` is free JSON."""

    kind: str
    inputs: dict[str, Value]
    outputs: tuple[str, ...]
    states: dict[str, State]
    values: dict[str, Value]
    nodes: tuple[Node | Scan, ...]
    tensors: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)

    def walk(self) -> Iterator[Node]:
        """Every node, those in the bodies of scans included, in order of execution."""
        for item in self.nodes:
            if isinstance(item, Scan):
                yield from item.body
            else:
                yield item

    @property
    def streaming(self) -> bool:
        """Whether the program can run one step at a time (no scan runs backwards)."""
        return not any(isinstance(item, Scan) and item.reverse for item in self.nodes)

    @property
    def logits_scale(self) -> float:
        """Real value of one step of the (first) output."""
        scale = self.values[self.outputs[0]].scale
        if scale is None:
            raise IrnnError(f"the output {self.outputs[0]} has no single scale: only its integers are defined")
        return scale

    def initial_state(self, batch: int) -> dict[str, np.ndarray]:
        """The state before the first step: name -> array ``[batch, *shape]`` filled with the zero point."""
        return {
            name: np.full((batch, *state.shape), state.initial, dtype=state.dtype)
            for name, state in self.states.items()
        }

    def run(
        self, inputs: np.ndarray, state: dict[str, np.ndarray] | None = None
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """A whole sequence: inputs ``[batch, time, *shape]`` -> (first output ``[batch, time, ...]``, last state)."""
        return self._interpreter.run(inputs, state)

    def step(
        self, inputs: np.ndarray, state: dict[str, np.ndarray] | None = None
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One time step: inputs ``[batch, *shape]`` -> (first output ``[batch, ...]``, next state)."""
        outputs, state = self.run(np.asarray(inputs)[:, None], state)
        return outputs[:, 0], state

    @cached_property
    def _interpreter(self) -> Any:
        from irnn.interpreter import Interpreter

        return Interpreter(self)

    def check(self) -> None:
        """Prove that the program is integer-only and cannot overflow; see :func:`irnn.check.check`."""
        from irnn.check import check

        check(self)

    def save(self, folder: Any) -> None:
        """Write ``program.json`` and ``tensors.safetensors``; see :func:`irnn.storage.save`."""
        from irnn.storage import save

        save(self, folder)

    def size_bytes(self, *, without: tuple[str, ...] = ()) -> int:
        """Bytes of all constants as stored (packed), tables and multipliers included."""
        return sum((t.data.size * t.storage_bits + 7) // 8 for name, t in self.tensors.items() if name not in without)

    def describe(self) -> str:
        """A readable listing: inputs, states, every operation with its formats, every constant with its size."""
        from irnn.listing import listing

        return listing(self)


def main(arguments: list[str]) -> int:
    """``python -m irnn.program describe|check FOLDER``."""
    from irnn.storage import load

    if len(arguments) != 2 or arguments[0] not in ("describe", "check"):
        print("usage: python -m irnn.program describe|check FOLDER", file=sys.stderr)
        return 2
    try:
        program = load(arguments[1])
        if arguments[0] == "check":
            program.check()
            print(f"integer-only: {sum(1 for _ in program.walk())} operations, {len(program.tensors)} tensors")
        else:
            print(program.describe())
    except IrnnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
