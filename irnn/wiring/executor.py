"""What a network says to its executor: the words of which every wiring is made.

A network's wiring is written once, against :class:`Executor`.  Three classes execute it: ``Simulation`` computes with
real numbers (training, calibration), ``IntegerRecorder`` writes the integer program, ``FloatRecorder`` its float
baseline.  A word means the same real numbers to all three; where a recorder has no integers for a call, it refuses it
in one line instead of meaning something else.

``T`` is what an executor computes with: a tensor or a symbol.  Sequences are T with a time axis in front.  A value that
is quantized *at a site* has that site's scale and zero point; *accumulators* (what ``linear`` and ``multiply`` give)
are not quantized yet and go through ``requantize``.  A site is *asymmetric* where its zero point is not 0 (roles
``activation`` and ``hidden``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

from torch import nn

from irnn.errors import IrnnError
from irnn.program.windows import Window
from irnn.quant.site import QuantSite
from irnn.wiring.parts import (
    ActivationPart,
    AffinePart,
    ConvolutionPart,
    ExponentialPart,
    GatesPart,
    NormPart,
    ThresholdPart,
    WeightPart,
)

T = TypeVar("T")


class StateSpec(NamedTuple):
    """A recurrent state: its name in programs, its size, the site at which it is quantized."""

    name: str
    size: int
    site: QuantSite


def state_taken(name: str) -> str:
    """What is wrong with a second scan of one state, in words."""
    return (
        f"the state {name!r} belongs to a scan already: a second one would start where the first has ended; wire the "
        "second call under a name of its own"
    )


def not_scanned(name: str) -> str:
    """What is wrong with asking for the last state of a scan that has not been, in words."""
    return f"no scan of the state {name!r} has ended here: wire its layer first, outside of other scans"


def check_ends(low: float | None, high: float | None) -> None:
    """The ends of a clamp, at least one, in their order."""
    if (low is None and high is None) or (low is not None and high is not None and not low < high):
        raise IrnnError(f"a clamp to {low}..{high}: give a lower end, a higher one, or both in this order")


def check_factor(factor: float) -> None:
    """What a scale is multiplied with."""
    if not 0 < factor < math.inf:
        raise IrnnError(f"cannot scale by {factor}: a factor must be positive and finite; subtract to turn a sign")


def need_undilated(window: Window) -> None:
    """A mean's taps lie side by side."""
    if max(window.dilation) > 1:
        raise IrnnError(f"a mean over a window with dilation {window.dilation}: only (1, 1) is pooled")


class Executor(Protocol[T]):
    """Everything that a wiring may say.  Names of arguments are part of it."""

    # --- products and sums ---

    def embedding(self, module: WeightPart, ids: T) -> T:
        """Rows of the table: ids -> ``[size]``, at the table's scale and zero point 0."""

    def linear(self, module: WeightPart, x: T) -> T:
        """``W x + b`` as accumulators, ``[columns]`` -> ``[rows]``.  x has one scale; any zero point is taken off."""

    def convolution(self, module: ConvolutionPart, x: T) -> T:
        """Sequence ``[bands * channels]`` -> accumulators ``[bands', filters]``; the border holds real zeros."""

    def multiply(self, a: T, b: T) -> T:
        """``a * b`` elementwise as accumulators; zero points are taken off."""

    def requantize(self, site: QuantSite, *terms: T) -> T:
        """Sum of the terms, quantized at ``site``.

        Terms are accumulators and symmetric values in any mixture, or quantized values alone, which may be asymmetric:
        a sum of accumulators and an asymmetric value is refused.
        """

    def residual(self, site: QuantSite, *terms: T) -> T:
        """Sum of quantized values of any scales and zero points, quantized at ``site``; no accumulators."""

    def subtract(self, site: QuantSite, a: T, b: T) -> T:
        """``a - b`` of quantized values of any scales and zero points, quantized at ``site``; no accumulators."""

    def accumulate(self, *terms: T) -> T:
        """Sum of accumulators, still accumulators, at one scale; values with a zero point are refused."""

    def add(self, site: QuantSite, a: T, b: T) -> T:
        """Saturating sum of two values that both live at ``site``, which is symmetric: its range holds the sum too."""

    def affine(self, module: AffinePart, x: T) -> T:
        """``gain x + shift``, element by element, as accumulators; x is quantized at any scale and zero point."""

    def scale(self, x: T, factor: float) -> T:
        """``factor x``, factor above 0: the same integers at another scale.  x is accumulators or a quantized value."""

    # --- functions ---

    def relu(self, site: QuantSite, *terms: T) -> T:
        """``max(sum of the terms, 0)``, quantized at ``site``; the terms are those of ``requantize``."""

    def mod_relu(self, module: ThresholdPart, site: QuantSite, x: T) -> T:
        """``sgn(x) max(|x| + b, 0)`` with b of each element, at ``site``, at which x lives and which is symmetric."""

    def clamp(self, site: QuantSite, x: T, low: float | None, high: float | None) -> T:
        """x within real ``low`` and ``high`` (None: no such end), quantized at ``site``; x as that of :meth:`relu`."""

    def norm(self, module: NormPart, site: QuantSite, x: T) -> T:
        """The norm of a quantized value (its zero point falls out), quantized at ``site``, which is symmetric."""

    def activation(self, module: ActivationPart, x: T) -> T:
        """The function of a value at the module's site and group, asymmetric ones included.

        At the gate's scale (sigmoid, tanh), or quantized at the module's output site.
        """

    def gates(self, gates: GatesPart, x: T, parts: tuple[T, ...]) -> tuple[T, ...]:
        """:meth:`activation` of the first of the ``parts`` into which x, a value at their site, is split."""

    def complement(self, x: T) -> T:
        """``1 - x`` of a sigmoid gate, at its scale and zero point; anything else is refused."""

    def minimum(self, a: T, b: T) -> T:
        """The smaller of two quantized values, element by element, which live at one scale and zero point."""

    # --- shapes and time ---

    def split(self, x: T, parts: int) -> tuple[T, ...]:
        """Equal parts of the last axis, each with its own scale."""

    def slice(self, x: T, start: int, stop: int) -> T:
        """Elements start..stop of the last axis, 0 <= start < stop <= its size."""

    def concat(self, parts: list[T]) -> T:
        """Values joined along the last axis; they share scale and zero point (a site), or are refused."""

    def join(self, site: QuantSite, parts: list[T]) -> T:
        """Quantized values of any scales and zero points along the last axis, each brought to ``site`` first."""

    def flatten(self, x: T) -> T:
        """``[bands, channels]`` -> ``[bands * channels]``."""

    def ragged(self, lengths: T | None) -> None:
        """From here on sequences end at ``lengths [batch]``; None: they are all as long as the longest."""

    def mask(self, x: T) -> T:
        """The sequence with padding set to 0, that is to the zero point."""

    def shorten(self, lengths: T, factor: int, offset: int | None = None) -> T:
        """``floor((length + offset) / factor)``; without an offset the ceiling, as after :meth:`subsample`.

        Behind a convolution or a pooling: ``shorten(lengths, window.strides[0], window.offset(0))``.
        """

    def subsample(self, x: T, factor: int) -> T:
        """Every ``factor``-th step of the sequence, the first included."""

    def last(self, x: T) -> T:
        """The last valid step of each sequence, a value without time; scale and zero point stay."""

    def step(self, x: T, index: int) -> T:
        """Step ``index`` of the sequence, a value without time; scale and zero point stay.

        Below 0 from the end of the axis, as torch counts: lengths do not matter here (they do to :meth:`last`).
        """

    def time_mean(self, x: T) -> T:
        """The mean over the valid steps of each sequence, a value without time, as accumulators."""

    def time_max(self, x: T) -> T:
        """The largest of each sequence's valid steps, element by element, a value without time at the same scale."""

    def softmax_mean(self, exponential: ExponentialPart, site: QuantSite, score: T, values: T) -> T:
        """Attention pooling: the mean of the valid steps, weighted by the softmax of their scores, at ``site``.

        score: a sequence of one element, at a symmetric site of 16 bits; values: a sequence at 8 bits.
        """

    def repeat(self, x: T, like: T) -> T:
        """A value without time at every step of the sequence ``like``."""

    def max_pool(self, window: Window, channels: int, x: T) -> T:
        """Sequence ``[bands * channels]`` -> ``[bands' * channels]``: the largest in each window, never the border."""

    def mean_pool(self, window: Window, channels: int, x: T) -> T:
        """As :meth:`max_pool`, the mean as accumulators; the border counts as zeros."""

    def dropout(self, x: T, p: float) -> T:
        """Zeros with probability ``p`` in training; nothing elsewhere."""

    # --- recurrence ---

    def scan(
        self,
        step: Callable[..., tuple[Any, ...]],
        sequence: T,
        states: list[StateSpec],
        *,
        reverse: bool = False,
        whole: Callable[..., Any] | None = None,
    ) -> Any:
        """Run ``step(executor, x_t, *states) -> (output, *states)`` along time; the outputs as a sequence.

        An output that is a tuple gives a tuple of sequences.  A state belongs to one scan: a second one under its name
        would start where the first has ended, and is refused.  A sequence keeps its state behind its end.

        ``whole(executor, sequence, *states) -> (output, *states)``, all of them sequences, are the same steps at once
        in real numbers, which an executor of real numbers may take in their place.
        """

    def start(self, state: StateSpec, x: T) -> None:
        """Before the scan of ``state``: it starts from the value ``x`` without time, which is brought to its site.

        Such a state belongs to this scan alone: a call does not take it from the one before, nor give it to the next.
        """

    def final(self, state: StateSpec) -> T:
        """Behind the scan of ``state``: the last one, a value without time; with lengths behind each one's valid steps.

        Of a scan in reverse it is the state behind the sequence's first step.
        """

    def fused(self, layer: Callable[..., Any], x: T, states: list[StateSpec]) -> T | None:
        """A layer of real numbers at once, ``layer(x, lengths, states) -> (y, states)``, in place of its wiring.

        None where the executor cannot: what then stands is the wiring.
        """

    # --- attention ---

    def attention_weights(
        self, v: WeightPart, tanh: ActivationPart, exponential: ExponentialPart, query: T, keys: T, lengths: T
    ) -> T:
        """Query ``[size]``, keys ``[memory, size]`` at the symmetric site of ``tanh`` -> probabilities ``[memory]``."""

    def attention_context(self, site: QuantSite, weights: T, values: T) -> T:
        """Probabilities ``[memory]``, values ``[memory, size]`` -> their mean ``[size]``, quantized at ``site``."""


class ProgramExecutor(Executor[T], Protocol[T]):
    """An executor that also declares what enters and leaves a program."""

    def ids(self, name: str, count: int, axis: str | None = "time") -> T:
        """An input: token ids below ``count`` along the axis of this name; two names are two lengths.

        None: one of each sequence, without time.
        """

    def features(self, name: str, site: QuantSite, axis: str = "time") -> T:
        """An input: a sequence in the site's format, along an axis of this name."""

    def value(self, name: str, site: QuantSite) -> T:
        """An input without time, one of each sequence, in the site's format."""

    def lengths(self, name: str, axis: str, least: int = 1) -> T:
        """An input: how much of ``axis`` each sequence of the batch fills, ``least`` or more."""

    def memory(self, name: str, site: QuantSite, size: int) -> T:
        """An input ``[memory, size]`` in the site's format."""

    def output(self, name: str, x: T) -> None:
        """``x`` leaves the program; ``name`` documents it."""


class Network(Protocol):
    """What is recorded: parts that have names, and the wiring of each program (``irnn.models.base.RecurrentModel``)."""

    def named_modules(self) -> Iterable[tuple[str, nn.Module]]:
        """Every part."""

    def program_wires(self) -> Mapping[str, Callable[[ProgramExecutor[Any]], None]]:
        """The wiring of each program by the program's name; of a network that is one program, under ""."""

    def program_metadata(self) -> Mapping[str, Any]:
        """What the programs note beside what they compute."""
