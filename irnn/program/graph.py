"""The program: a recurrent network as a short list of operations over named values, integer-only or float.

The network's wiring is written once, in ``irnn.nn`` and ``irnn.models``; ``irnn.convert`` records it as a
:class:`Program`.  The interpreter executes a program with NumPy integers, ``deploy_tvm`` lowers the same program, and
``python -m irnn.program describe FOLDER`` prints it.  The float baseline is the same class with ``kind="float"``.

Shapes.  A value's ``shape`` leaves out the leading axes: the batch, then the value's ``axes``.  Those of a sequence are
``("time",)``, so outside a scan it is ``[batch, time, *shape]``; inside a scan's body the axis that is walked is gone:
``[batch, *shape]``.  One step is a sequence of length one: there is one definition.  A convolution with a stride of 2
leaves ``("time/2",)``.  What an attention looks at is ``("memory",)``: ``[batch, memory, *shape]`` in and outside of
scans.  Lengths have no axes: ``[batch]``; ``counts`` names the axis whose valid part they give, and what stands behind
it is padding, which changes no integer before it.

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
residual       narrow values -> ``clamp(sum rescale(x_k - zero_points[k], [multiplier_k], [shift_k]) + zero_point)``
               (zero_points, zero_point, low, high)
mask           sequence, lengths -> the sequence with padding set to (fill), the integer of 0
shorten        lengths -> ``ceil(length / factor)`` (factor)
subsample      sequence -> every (factor)-th step of it, the first included
patches        sequence of ``[bands * channels]`` -> ``[bands', kernel_t * kernel_f * channels]``, the rows of a
               convolution as a ``linear``: time outermost, then band, then channel; a border of ``kernel // 2``
               holds (fill) (channels, kernel, strides, fill); kernel and strides are [time, band]
flatten        ``[bands, channels]`` -> ``[bands * channels]``
attention_weights  query ``[size]``, keys ``[memory, size]``, lengths -> uint16 ``[memory]``, 0 in the padding:
               ``score = [weight] tanh(query + keys)``, tanh by [knots], [slopes], [intercepts], then [table] at
               ``clamp(rescale(max - score, [multiplier], [shift]), 0, 255)``
               (low, high of the sum; tanh_shift, tanh_low, tanh_high)
attention_context  weights ``[memory]``, values ``[memory, size]`` -> their weighted mean ``[size]``, requantized by
               [multiplier], [shift] (zero_point_values, zero_point, low, high)
relu, sigmoid, tanh  float programs only
=============  ======================================================================================================

A float program has no ``requantize`` and no ``residual`` (a sum is ``add``) and no ``pwl``; its norms carry
``epsilon``, its attention weights are the softmax of the scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from irnn.errors import IrnnError

FORMAT_VERSION = 1
INTEGER_OPS = (
    "embedding", "linear", "requantize", "add", "multiply", "pwl", "mad_norm", "layer_norm", "slice", "concat",
    "residual", "mask", "shorten", "subsample", "patches", "flatten", "attention_weights", "attention_context",
)  # fmt: skip
FLOAT_OPS = (
    "embedding", "linear", "add", "multiply", "sigmoid", "tanh", "mad_norm", "layer_norm", "slice", "concat",
    "relu", "mask", "shorten", "subsample", "patches", "flatten", "attention_weights", "attention_context",
)  # fmt: skip
DTYPES = ("int8", "uint16", "int16", "int32", "float32")
# Steps of a sequence or places of a memory that lengths may count: the reciprocal of an attention's sum of up to 2**16
# weights below 2**16 keeps 16 bits.  65,536 frames of 10 ms are 11 minutes.
LENGTH_MAX = 1 << 16

States = dict[str, np.ndarray]
Inputs = np.ndarray | Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Value:
    """A named tensor: ``dtype``, ``shape`` without the batch and the ``axes``, and what its integers mean.

    ``scale`` and ``zero_point`` are for readers (and for the logits' scale); no operation computes with them.  A value
    whose elements have several scales (one a row or gate) has ``scale=None``.  ``low..high`` is the proved range.
    ``counts`` marks lengths: the axis whose valid part they give.
    """

    dtype: str
    shape: tuple[int, ...]
    scale: float | None = None
    zero_point: int = 0
    low: int | None = None
    high: int | None = None
    axes: tuple[str, ...] = ("time",)
    counts: str | None = None

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """Real numbers -> this value's integers, by its scale, zero point and range; NaN or infinity is refused."""
        bad = ~np.isfinite(x)
        if bad.any():
            place = [int(i) for i in np.argwhere(bad)[0]]
            raise IrnnError(
                f"{int(bad.sum())} of the numbers to quantize are NaN or infinite, the first at {place}; mend the data"
            )
        steps = np.floor(np.asarray(x, np.float64) / self.scale + self.zero_point + 0.5)
        return np.clip(steps, self.low, self.high).astype(self.dtype)


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
    ``captures`` are outer values without the walked axis that the body reads as they are (an attention's memory).  With
    ``lengths`` a sequence of the batch keeps its states in the steps behind its end, so a reverse scan starts at each
    sequence's own end.
    """

    sequences: dict[str, str]
    states: dict[str, tuple[str, str]]
    outputs: dict[str, str]
    body: tuple[Node, ...]
    reverse: bool = False
    captures: tuple[str, ...] = ()
    lengths: str | None = None


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
        """Whether the program can run one step at a time: nothing looks ahead, no step is left out."""
        return not any(
            item.reverse if isinstance(item, Scan) else item.op in ("patches", "subsample") for item in self.nodes
        )

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

    def run(self, inputs: Inputs, state: States | None = None) -> tuple[np.ndarray, States]:
        """A whole sequence: inputs ``[batch, time, *shape]`` -> (first output ``[batch, time, ...]``, last state).

        A program with several inputs takes a dict of them by name.
        """
        outputs, state = self.run_all(inputs, state)
        return outputs[0], state

    def run_all(self, inputs: Inputs, state: States | None = None) -> tuple[list[np.ndarray], States]:
        """As :meth:`run`, with every output, in the order of ``outputs``."""
        return self._interpreter.run_all(inputs, state)

    def step(self, inputs: Inputs, state: States | None = None) -> tuple[np.ndarray, States]:
        """One time step: sequences without their time axis -> (first output ``[batch, ...]``, next state)."""
        outputs, state = self.step_all(inputs, state)
        return outputs[0], state

    def step_all(self, inputs: Inputs, state: States | None = None) -> tuple[list[np.ndarray], States]:
        """As :meth:`step`, with every output."""
        if isinstance(inputs, Mapping):
            walked = {name for name, value in self.inputs.items() if "time" in value.axes}
            inputs = {name: np.asarray(x)[:, None] if name in walked else x for name, x in inputs.items()}
        else:
            inputs = np.asarray(inputs)[:, None]
        outputs, state = self.run_all(inputs, state)
        return [output[:, 0] for output in outputs], state

    @cached_property
    def _interpreter(self) -> Any:
        from irnn.program.interpreter import Interpreter

        return Interpreter(self)

    def check(self) -> None:
        """Prove that the program is integer-only and cannot overflow; see :func:`irnn.program.check.check`."""
        from irnn.program.check import check

        check(self)

    def save(self, folder: Any) -> None:
        """Write ``program.json`` and ``tensors.safetensors``; see :func:`irnn.program.storage.save`."""
        from irnn.program.storage import save

        save(self, folder)

    def size_bytes(self, *, without: tuple[str, ...] = ()) -> int:
        """Bytes of all constants as stored (packed), tables and multipliers included."""
        return sum((t.data.size * t.storage_bits + 7) // 8 for name, t in self.tensors.items() if name not in without)

    def describe(self) -> str:
        """A readable listing: inputs, states, every operation with its formats, every constant with its size."""
        from irnn.program.listing import listing

        return listing(self)
