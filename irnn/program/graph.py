"""The program: a recurrent network as a short list of operations over named values, integer-only or float.

The network's wiring is written once, in ``irnn.nn`` and ``irnn.models``; ``irnn.convert`` records it as a
:class:`Graph`.  The interpreter executes a program with NumPy integers, ``deploy_tvm`` lowers the same program, and
``python -m irnn.program describe FOLDER`` prints it.  The float baseline is the same class with ``kind="float"``.

Shapes.  A value's ``shape`` leaves out the leading axes: the batch, then the value's ``axes``.  Those of a sequence are
``("time",)``, so outside a scan it is ``[batch, time, *shape]``; inside a scan's body the axis that is walked is gone:
``[batch, *shape]``.  One step is a sequence of length one: there is one definition.  A convolution with a stride of 2
leaves ``("time/2",)`` (``irnn.program.axes``).  What an attention looks at is ``("memory",)``: ``[batch, memory,
*shape]`` in and outside of scans.  A value that has no time has no axes: ``[batch, *shape]``.  Lengths have none
either; ``counts`` names the axis whose valid part they give, and what stands behind it is padding, which changes no
integer before it.

The operations that a node may name stand in ``irnn.program.ops``, and as a table in ``docs/operations.md``.  A float
program has no ``requantize``, no ``residual`` (a sum is ``add``) and no ``pwl``; its norms carry ``epsilon``, its
attention weights are the softmax of the scores.

Everything here is plain data.  What can be done with it (proofs, execution, storage) is built on it, floor by floor,
and :class:`irnn.program.Program`, the roof, is this graph with all of that as its methods: imports go one way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from irnn.errors import IrnnError
from irnn.program import encodings
from irnn.program.axes import Axis
from irnn.program.windows import Window

INTEGER_DTYPES = {
    "int8": (-128, 127),
    "uint16": (0, 65535),
    "int16": (-32768, 32767),
    "int32": (-(1 << 31), (1 << 31) - 1),
}
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
        if self.scale is None:
            raise IrnnError("this value has no single scale: real numbers cannot be quantized to it")
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
    """A constant.  ``bits`` is the width of its integers, ``encoding`` how they are packed on disk and their range.

    An encoding that is not given is that of format version 1 (``encodings.version_1``).  In memory nothing is packed.
    """

    data: np.ndarray
    bits: int
    encoding: str = ""

    def __post_init__(self) -> None:
        if self.encoding:
            encodings.find(self.encoding)
        else:
            object.__setattr__(self, "encoding", encodings.version_1(str(self.data.dtype), self.bits))

    @property
    def storage_bits(self) -> int:
        """Bits that one element takes on disk."""
        return encodings.find(self.encoding).storage_bits(self.bits)


@dataclass(frozen=True)
class Node:
    """One operation: value names in, one value name out; ``tensors`` maps a parameter's role to a constant's name."""

    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, str] = field(default_factory=dict)


# What reads several steps at once, or leaves some out.
WINDOWS = ("patches", "max_pool", "mean_pool")
MANY_STEPS = (*WINDOWS, "subsample", "time_mean", "time_max", "softmax_mean")


def _of_many_steps(node: Node) -> bool:
    """Whether a call with one step cannot do what a call with all of them does."""
    return node.op in MANY_STEPS or (node.op == "step" and node.attributes["index"] != -1)


@dataclass(frozen=True)
class Scan:
    """A loop over time.  ``reverse`` runs from the last step to the first (the backward half of a BiLSTM).

    ``sequences`` maps body values to the sequences that they walk along, ``states`` maps a program state to the body
    values that hold it (before, after a step), ``outputs`` maps outer sequences to the body values that they collect.
    ``captures`` are outer values without the walked axis that the body reads as they are (an attention's memory).  With
    ``lengths`` a sequence of the batch keeps its states in the steps behind its end, so a reverse scan starts at each
    sequence's own end.  ``starts`` maps a state of this scan alone, which the program has not, to the outer value
    without the walked axis from which it starts; ``finals`` maps outer values without that axis to the states whose
    last ones they are.
    """

    sequences: dict[str, str]
    states: dict[str, tuple[str, str]]
    outputs: dict[str, str]
    body: tuple[Node, ...]
    reverse: bool = False
    captures: tuple[str, ...] = ()
    lengths: str | None = None
    starts: dict[str, str] = field(default_factory=dict)
    finals: dict[str, str] = field(default_factory=dict)


@dataclass
class Graph:
    """A recurrent network as plain data.  ``kind`` is "integer" or "float"; ``metadata`` is free JSON."""

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
        return not any(item.reverse if isinstance(item, Scan) else _of_many_steps(item) for item in self.nodes)

    @property
    def window(self) -> int | None:
        """Of how many steps of its inputs one step of the outputs is made, where calls with so many give the next step.

        1 where the program runs one step at a time; more where windows without a border stand in front of everything
        that has a state; None where calls do not go on from each other.
        """
        if self.streaming:
            return 1
        carried: set[str] = set()  # what depends on a state
        for item in self.nodes:
            if isinstance(item, Scan):
                if item.reverse:
                    return None
                carried |= {*item.outputs, *item.finals}
            elif _of_many_steps(item):
                plain = item.op in WINDOWS and Window.of(item.attributes).padding[0] == (0, 0)
                if not plain or not carried.isdisjoint(item.inputs):
                    return None
            if isinstance(item, Node) and not carried.isdisjoint(item.inputs):
                carried.add(item.output)
        axes = [Axis.parse(axis) for name in self.outputs for axis in self.values[name].axes[:1]]
        frames = {axis.root_for(1) for axis in axes if axis.root == "time"}
        return frames.pop() if len(axes) == len(self.outputs) and len(frames) == 1 else None

    @property
    def fewest(self) -> dict[str, int]:
        """How long an axis of the inputs must be, where 1 is too short: windows need room, a ``step`` its place."""
        values = self.inputs | self.values
        wanted = [(axis, 1) for value in values.values() for axis in value.axes]
        for node in self.nodes:
            if isinstance(node, Node) and node.op == "step":
                index = node.attributes["index"]
                wanted.append((values[node.inputs[0]].axes[0], index + 1 if index >= 0 else -index))
        least: dict[str, int] = {}
        for axis, size in ((Axis.parse(name), size) for name, size in wanted):
            least[axis.root] = max(least.get(axis.root, 1), axis.root_for(size))
        return {root: size for root, size in least.items() if size > 1}

    @property
    def logits_scale(self) -> float:
        """Real value of one step of the (first) output."""
        return self._scale(self.outputs[0])

    @property
    def output_scales(self) -> list[float]:
        """The same of every output."""
        return [self._scale(name) for name in self.outputs]

    def _scale(self, output: str) -> float:
        scale = self.values[output].scale
        if scale is None:
            raise IrnnError(f"the output {output} has no single scale: only its integers are defined")
        return scale

    def initial_state(self, batch: int) -> dict[str, np.ndarray]:
        """The state before the first step: name -> array ``[batch, *shape]`` filled with the zero point."""
        return {
            name: np.full((batch, *state.shape), state.initial, dtype=state.dtype)
            for name, state in self.states.items()
        }

    def size_bytes(self, *, without: tuple[str, ...] = ()) -> int:
        """Bytes of all constants as stored (packed), tables and multipliers included."""
        return sum((t.data.size * t.storage_bits + 7) // 8 for name, t in self.tensors.items() if name not in without)


def too_short(fewest: Mapping[str, int], sizes: Mapping[str, int]) -> str | None:
    """What is wrong with the sizes of a call's axes, in words, ``fewest`` being :attr:`Graph.fewest`; or None."""
    for axis, least in fewest.items():
        if sizes.get(axis, least) < least:
            return f"the inputs have {sizes[axis]} along {axis}, this program takes at least {least}"
    return None
