"""What the two recorders share: values under construction, names, constants, scans, operations on shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from irnn.errors import IrnnError
from irnn.names import readable_name
from irnn.program import LENGTH_MAX, Node, Program, Scan, State, Tensor, Value
from irnn.quant.site import QuantSite
from irnn.wiring.executor import Network, StateSpec, state_taken
from irnn.wiring.parts import ConvolutionPart, WeightPart


@dataclass(frozen=True)
class Symbol:
    """A value under construction: ``scale`` is ``[1]`` or one entry an element of the last axis, float64."""

    name: str
    dtype: str
    shape: tuple[int, ...]  # (): a scalar (token ids)
    scale: np.ndarray
    zero_point: int = 0
    axes: tuple[str, ...] = Value.axes

    @property
    def size(self) -> int:
        """Elements of the last axis."""
        return self.shape[-1]


@dataclass(frozen=True)
class Planes(Symbol):
    """Accumulators whose sum is meant, each at scales of its own: the product with a matrix of several planes.

    It is the first of ``parts`` where only shapes are asked for; what adds up terms takes the parts, nothing else does.
    """

    parts: tuple[Symbol, ...] = ()


def added(symbols: Sequence[Symbol]) -> tuple[Symbol, ...]:
    """The terms of a sum: planes one by one."""
    return tuple(part for s in symbols for part in (s.parts if isinstance(s, Planes) else (s,)))


class Recorder:
    """What the two recorders share: names, constants, scans, shape operations."""

    kind: str

    def __init__(self, model: Network) -> None:
        self._names: dict[object, str] = {module: readable_name(name) for name, module in model.named_modules()}
        self._taken: dict[str, int] = {}
        self._nodes: list[Node | Scan] = []
        self.values: dict[str, Value] = {}
        self.tensors: dict[str, Tensor] = {}
        self.inputs: dict[str, Value] = {}
        self.outputs: list[str] = []
        self.states: dict[str, State] = {}
        self._scope = ""
        self._lengths: Symbol | None = None

    def program(self) -> Program:
        """What has been recorded, without what nothing reads (a part of a split that is of no use)."""
        nodes = _read_nodes(self._nodes, set(self.outputs))
        dropped = {node.output for node in _walk(self._nodes)} - {node.output for node in _walk(nodes)}
        return Program(
            kind=self.kind,
            inputs=self.inputs,
            outputs=tuple(self.outputs),
            states=self.states,
            values={name: value for name, value in self.values.items() if name not in dropped},
            nodes=tuple(nodes),
            tensors=self.tensors,
        )

    def ids(self, name: str, count: int) -> Symbol:
        """Declare the program's input: token ids below ``count``."""
        symbol = self._declare(name, "int32", (), np.ones(1))
        self.inputs[name] = self.values[name] = Value("int32", (), low=0, high=count - 1)
        return symbol

    def lengths(self, name: str, axis: str) -> Symbol:
        """Declare an input that says how much of ``axis`` each sequence of the batch fills."""
        symbol = self._declare(name, "int32", (), np.ones(1), axes=())
        self.inputs[name] = self.values[name] = Value("int32", (), low=1, high=LENGTH_MAX, axes=(), counts=axis)
        return symbol

    def memory(self, name: str, site: QuantSite, size: int) -> Symbol:
        """Declare an input ``[batch, memory, size]`` in the site's format."""
        dtype, scale, zero_point = self._state_format(site)
        low, high = site.range() if self.kind == "integer" else (None, None)
        symbol = self._declare(name, dtype, (size,), scale, zero_point, axes=("memory",))
        value = replace(self.values[symbol.name], low=low, high=high)
        self.inputs[name] = self.values[symbol.name] = value
        return symbol

    def ragged(self, lengths: Symbol | None) -> None:
        """From here on sequences end at ``lengths``; None: at the end of the axis."""
        self._lengths = lengths

    def output(self, name: str, x: Symbol) -> None:
        """Declare ``x`` an output; ``name`` documents it."""
        self.outputs.append(x.name)

    def dropout(self, x: Symbol, p: float) -> Symbol:
        return x

    def split(self, x: Symbol, parts: int) -> tuple[Symbol, ...]:
        size = x.size // parts
        scales = np.broadcast_to(x.scale, (x.size,)).reshape(parts, size)
        return tuple(
            self._emit(
                "slice", (x,), f"{x.name}.{k}", x.dtype, (size,), shorten(scales[k]), x.zero_point,
                {"start": k * size, "stop": (k + 1) * size},
            )
            for k in range(parts)
        )  # fmt: skip

    def concat(self, parts: list[Symbol]) -> Symbol:
        first = parts[0]
        if any(p.zero_point != first.zero_point or not np.array_equal(p.scale, first.scale) for p in parts):
            raise IrnnError(f"cannot concatenate {[p.name for p in parts]}: their scales differ; let them share a site")
        size = sum(p.size for p in parts)
        name = f"{self._scope}concat"
        return self._emit("concat", tuple(parts), name, first.dtype, (size,), first.scale, first.zero_point)

    def scan(
        self,
        step: Callable[..., tuple[Any, ...]],
        sequence: Symbol,
        states: list[StateSpec],
        *,
        reverse: bool = False,
    ) -> Any:
        """Record ``step`` once, as the body of a loop over time."""
        outer, self._nodes = self._nodes, []
        x = self._copy(f"{sequence.name}[t]", sequence)
        before = [self._state(name, size, site, sequence.axes) for name, size, site in states]
        output, *after = step(self, x, *before)
        body = tuple(node for node in self._nodes if isinstance(node, Node))
        if len(body) < len(self._nodes):
            raise IrnnError(f"a scan over {sequence.name} holds another scan: programs have no loops within loops")
        self._nodes = outer
        outputs = output if isinstance(output, tuple) else (output,)
        collected = tuple(self._copy(f"{y.name}[:]", y) for y in outputs)
        known = {x.name, *(b.name for b in before), *(node.output for node in body)}
        read = dict.fromkeys(name for node in body for name in node.inputs)
        pairs = zip(states, before, after, strict=True)
        self._nodes.append(
            Scan(
                sequences={x.name: sequence.name},
                states={name: (b.name, a.name) for (name, _, _), b, a in pairs},
                outputs={c.name: y.name for c, y in zip(collected, outputs, strict=True)},
                body=body,
                reverse=reverse,
                captures=tuple(name for name in read if name not in known),
                lengths=None if self._lengths is None else self._lengths.name,
            )
        )
        return collected if isinstance(output, tuple) else collected[0]

    def fused(self, layer: Callable[..., Any], x: Symbol, states: list[StateSpec]) -> None:
        """A program is made of the wiring."""
        return None

    def complement(self, x: Symbol) -> Symbol:
        return self._emit("complement", (x,), f"{x.name}.complement", x.dtype, x.shape, x.scale, x.zero_point)

    def last(self, x: Symbol) -> Symbol:
        inputs = (x,) if self._lengths is None else (x, self._lengths)
        return self._emit("last", inputs, f"{x.name}.last", x.dtype, x.shape, x.scale, x.zero_point, axes=())

    def mask(self, x: Symbol) -> Symbol:
        if self._lengths is None:
            raise IrnnError(f"there is nothing to mask {x.name} by: say where sequences end (ragged) first")
        return self._emit(
            "mask", (x, self._lengths), f"{x.name}.masked", x.dtype, x.shape, x.scale, x.zero_point,
            {"fill": x.zero_point},
        )  # fmt: skip

    def shorten(self, lengths: Symbol, factor: int) -> Symbol:
        counts = self.values[lengths.name].counts
        if counts is None:
            raise IrnnError(f"{lengths.name} holds no lengths: only such are shortened")
        axis = divided(counts, factor)
        name = f"{lengths.name}/{factor}"
        symbol = self._emit("shorten", (lengths,), name, "int32", (), np.ones(1), 0, {"factor": factor}, axes=())
        self.values[symbol.name] = replace(self.values[symbol.name], counts=axis)
        return symbol

    def subsample(self, x: Symbol, factor: int) -> Symbol:
        axes = (divided(x.axes[0], factor), *x.axes[1:])
        return self._emit(
            "subsample", (x,), f"{x.name}/{factor}", x.dtype, x.shape, x.scale, x.zero_point, {"factor": factor},
            axes=axes,
        )  # fmt: skip

    def convolution(self, module: ConvolutionPart, x: Symbol) -> Symbol:
        """im2col, then a matrix product with each band's neighbourhood."""
        stride_t, stride_f = module.strides
        bands = -(-x.size // module.channels // stride_f)
        columns = math.prod(module.kernel_size) * module.channels
        attributes = {
            "channels": module.channels, "kernel": list(module.kernel_size), "strides": list(module.strides),
            "fill": x.zero_point,
        }  # fmt: skip
        axes = (divided(x.axes[0], stride_t), *x.axes[1:])
        patches = self._emit(
            "patches", (x,), f"{self._name(module)}.patches", x.dtype, (bands, columns), x.scale, x.zero_point,
            attributes, axes=axes,
        )  # fmt: skip
        return self.linear(module, patches)

    def flatten(self, x: Symbol) -> Symbol:
        shape = (*x.shape[:-2], x.shape[-2] * x.shape[-1])
        return self._emit("flatten", (x,), f"{x.name}.flat", x.dtype, shape, x.scale, x.zero_point)

    def linear(self, module: WeightPart, x: Symbol) -> Symbol:
        raise NotImplementedError

    def _state(self, name: str, size: int, site: QuantSite, axes: tuple[str, ...]) -> Symbol:
        if name in self.states:
            raise IrnnError(state_taken(name))
        dtype, scale, zero_point = self._state_format(site)
        self.states[name] = State(dtype, (size,), zero_point)
        return self._declare(f"{name}.before", dtype, (size,), scale, zero_point, axes)

    def _copy(self, name: str, x: Symbol) -> Symbol:
        return self._declare(name, x.dtype, x.shape, x.scale, x.zero_point, x.axes)

    def _state_format(self, site: QuantSite) -> tuple[str, np.ndarray, int]:
        raise NotImplementedError

    def _declare(
        self,
        name: str,
        dtype: str,
        shape: tuple[int, ...],
        scale: np.ndarray,
        zero_point: int = 0,
        axes: tuple[str, ...] = Value.axes,
    ) -> Symbol:
        self._taken[name] = self._taken.get(name, 0) + 1
        if self._taken[name] > 1:
            name = f"{name}~{self._taken[name]}"
        single = float(scale[0]) if len(scale) == 1 else None
        self.values[name] = Value(dtype, shape, single, zero_point, axes=axes)
        return Symbol(name, dtype, shape, scale, zero_point, axes)

    def _emit(
        self,
        op: str,
        inputs: tuple[Symbol, ...],
        name: str,
        dtype: str,
        shape: tuple[int, ...],
        scale: np.ndarray,
        zero_point: int = 0,
        attributes: dict[str, Any] | None = None,
        tensors: Mapping[str, Tensor | str] | None = None,
        axes: tuple[str, ...] | None = None,
    ) -> Symbol:
        for x in inputs:
            if isinstance(x, Planes):
                raise IrnnError(
                    f"{name} ({op}) reads {x.name}, accumulators of {len(x.parts)} planes: requantize their sum first"
                )
        symbol = self._declare(name, dtype, shape, scale, zero_point, inputs[0].axes if axes is None else axes)
        names = {}
        for role, tensor in (tensors or {}).items():
            if isinstance(tensor, str):  # a constant that is there already: a tied weight
                names[role] = tensor
            else:
                names[role] = f"{symbol.name}.{role}"
                self.tensors[names[role]] = tensor
        self._nodes.append(Node(op, tuple(s.name for s in inputs), symbol.name, attributes or {}, names))
        return symbol

    def _name(self, module: object) -> str:
        name = self._names[module]
        self._scope = name.rpartition(".")[0] + "." if "." in name else ""
        return name


def _walk(nodes: list[Node | Scan]) -> Iterator[Node]:
    for item in nodes:
        yield from item.body if isinstance(item, Scan) else (item,)


def _read_nodes(nodes: Sequence[Node | Scan], wanted: set[str]) -> list[Node | Scan]:
    """The nodes, in order, of which anything in ``wanted`` is made; a scan stays, since it moves its states."""
    kept: list[Node | Scan] = []
    for item in reversed(nodes):
        if isinstance(item, Scan):
            item = _read_scan(item)
            wanted |= {*item.sequences.values(), *item.captures, *([item.lengths] if item.lengths else [])}
        elif item.output in wanted:
            wanted |= set(item.inputs)
        else:
            continue
        kept.append(item)
    return kept[::-1]


def _read_scan(scan: Scan) -> Scan:
    """The scan without what neither its states nor its outputs are made of."""
    wanted = {after for _, after in scan.states.values()} | set(scan.outputs.values())
    body: list[Node] = []
    for node in reversed(scan.body):
        if node.output in wanted:
            wanted |= set(node.inputs)
            body.append(node)
    return replace(scan, body=tuple(body[::-1]), captures=tuple(name for name in scan.captures if name in wanted))


def divided(axis: str, factor: int) -> str:
    """Name of an axis of which every ``factor``-th step was kept: time, time/2, time/4."""
    name, _, before = axis.partition("/")
    total = factor * int(before or 1)
    return axis if factor == 1 else f"{name}/{total}"


def shorten(scale: np.ndarray) -> np.ndarray:
    """One entry where all are the same."""
    scale = np.atleast_1d(scale)
    return scale[:1] if np.all(scale == scale[0]) else scale
