"""What the two recorders share: values under construction, names, constants, inputs and outputs, scans."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from irnn.errors import IrnnError
from irnn.names import readable_name
from irnn.program import LENGTH_MAX, Node, Program, Scan, State, Tensor, Value
from irnn.quant.site import QuantSite
from irnn.wiring.executor import Network, StateSpec, not_scanned, state_taken
from irnn.wiring.parts import ActivationPart, GatesPart


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
    """Names, constants, inputs and outputs, scans."""

    kind: str

    def __init__(self, model: Network) -> None:
        self._names: dict[object, str] = {module: readable_name(name) for name, module in model.named_modules()}
        self._taken: dict[str, int] = {}
        self._nodes: list[Node | Scan] = []
        self.values: dict[str, Value] = {}
        self.tensors: dict[str, Tensor] = {}
        self.inputs: dict[str, Value] = {}
        self.outputs: list[str] = []
        self.output_names: list[str] = []  # what a wiring calls them, in the same order
        self.states: dict[str, State] = {}
        self._scanned: set[str] = set()  # states that a scan has walked
        self._starts: dict[str, Symbol] = {}  # states that start from a value
        self._finals: dict[str, Symbol] = {}
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

    def ids(self, name: str, count: int, axis: str | None = "time") -> Symbol:
        """Declare the program's input: token ids below ``count``."""
        axes = () if axis is None else (axis,)
        symbol = self._declare(name, "int32", (), np.ones(1), axes=axes)
        self.inputs[name] = self.values[name] = Value("int32", (), low=0, high=count - 1, axes=axes)
        return symbol

    def lengths(self, name: str, axis: str, least: int = 1) -> Symbol:
        """Declare an input that says how much of ``axis`` each sequence of the batch fills, ``least`` or more."""
        symbol = self._declare(name, "int32", (), np.ones(1), axes=())
        self.inputs[name] = self.values[name] = Value("int32", (), low=least, high=LENGTH_MAX, axes=(), counts=axis)
        return symbol

    def features(self, name: str, site: QuantSite, axis: str = "time") -> Symbol:
        """Declare an input ``[batch, time, size]`` in the site's format."""
        return self._given(name, site, site.size, (axis,))

    def value(self, name: str, site: QuantSite) -> Symbol:
        """Declare an input ``[batch, size]`` in the site's format."""
        return self._given(name, site, site.size, ())

    def memory(self, name: str, site: QuantSite, size: int) -> Symbol:
        """Declare an input ``[batch, memory, size]`` in the site's format."""
        return self._given(name, site, size, ("memory",))

    def _given(self, name: str, site: QuantSite, size: int, axes: tuple[str, ...]) -> Symbol:
        dtype, scale, zero_point = self._state_format(site)
        low, high = site.range() if self.kind == "integer" else (None, None)
        symbol = self._declare(name, dtype, (size,), scale, zero_point, axes=axes)
        value = replace(self.values[symbol.name], low=low, high=high)
        self.inputs[name] = self.values[symbol.name] = value
        return symbol

    def ragged(self, lengths: Symbol | None) -> None:
        """From here on sequences end at ``lengths``; None: at the end of the axis."""
        self._lengths = lengths

    def output(self, name: str, x: Symbol) -> None:
        """Declare ``x`` an output; ``name`` documents it."""
        self.outputs.append(x.name)
        self.output_names.append(name)

    def gates(self, gates: GatesPart, x: Symbol, parts: tuple[Symbol, ...]) -> tuple[Symbol, ...]:
        return tuple(self.activation(f, part) for f, part in zip(gates.functions, parts, strict=False))

    def activation(self, module: ActivationPart, x: Symbol) -> Symbol:
        raise NotImplementedError

    def dropout(self, x: Symbol, p: float) -> Symbol:
        return x

    def scan(
        self,
        step: Callable[..., tuple[Any, ...]],
        sequence: Symbol,
        states: list[StateSpec],
        *,
        reverse: bool = False,
        whole: Callable[..., Any] | None = None,
    ) -> Any:
        """Record ``step`` once, as the body of a loop over time."""
        outer, self._nodes = self._nodes, []
        x = self._copy(f"{sequence.name}[t]", sequence)
        before = [self._state(name, size, site, sequence.axes) for name, size, site in states]
        output, *after = step(self, x, *before)
        for state, b, a in zip(states, before, after, strict=True):
            self._need_format(state, b, a)
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
                starts={name: self._starts[name].name for name, _, _ in states if name in self._starts},
            )
        )
        return collected if isinstance(output, tuple) else collected[0]

    def start(self, state: StateSpec, x: Symbol) -> None:
        """Keep the value for the scan."""
        if state.name in self._scanned:
            raise IrnnError(state_taken(state.name))
        if x.axes:
            raise IrnnError(
                f"the state {state.name!r} cannot start from {x.name}, which is a sequence: take a step of it"
            )
        self._starts[state.name] = self._at(state.site, x)

    def final(self, state: StateSpec) -> Symbol:
        """Ask the scan of the state for its last one."""
        for k, item in enumerate(self._nodes):
            if isinstance(item, Scan) and state.name in item.states:
                if state.name not in self._finals:
                    dtype, scale, zero_point = self._state_format(state.site)
                    symbol = self._declare(f"{state.name}.final", dtype, (state.size,), scale, zero_point, ())
                    self._finals[state.name] = symbol
                    self._nodes[k] = replace(item, finals=item.finals | {symbol.name: state.name})
                return self._finals[state.name]
        raise IrnnError(not_scanned(state.name))

    def fused(self, layer: Callable[..., Any], x: Symbol, states: list[StateSpec]) -> None:
        """A program is made of the wiring."""
        return None

    def _state(self, name: str, size: int, site: QuantSite, axes: tuple[str, ...]) -> Symbol:
        if name in self._scanned:
            raise IrnnError(state_taken(name))
        self._scanned.add(name)
        dtype, scale, zero_point = self._state_format(site)
        if name not in self._starts:
            self.states[name] = State(dtype, (size,), zero_point)
        return self._declare(f"{name}.before", dtype, (size,), scale, zero_point, axes)

    def _need_format(self, state: StateSpec, before: Symbol, after: Symbol) -> None:
        """What a step leaves is what the next one reads."""
        same = np.array_equal(np.broadcast_to(after.scale, before.shape), np.broadcast_to(before.scale, before.shape))
        if not same or (after.dtype, after.shape, after.zero_point) != (before.dtype, before.shape, before.zero_point):
            raise IrnnError(
                f"the state {state.name!r} is left as {after.name}, which does not live at its site "
                f"{state.site.where}: requantize it there"
            )

    def _at(self, site: QuantSite, x: Symbol) -> Symbol:
        """The quantized value ``x``, brought to ``site`` where it is not there."""
        raise NotImplementedError

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
            wanted |= {*item.sequences.values(), *item.captures, *item.starts.values()}
            wanted |= {item.lengths} if item.lengths else set()
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


def shorten(scale: np.ndarray) -> np.ndarray:
    """One entry where all are the same."""
    scale = np.atleast_1d(scale)
    return scale[:1] if np.all(scale == scale[0]) else scale
