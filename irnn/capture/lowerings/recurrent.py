"""Recurrent modules: layers, directions, states that are given and taken, sequences of unequal length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from irnn.capture.borrowed import Borrowed, BorrowedStack, Facts
from irnn.capture.edges import Axis, Edge, permutation, shown
from irnn.capture.forms import Held, Owner
from irnn.capture.lowerings.affine import constant
from irnn.capture.lowerings.glue import select
from irnn.capture.wiring import UnsupportedError, Wiring
from irnn.nn.cells import CELLS
from irnn.wiring.executor import StateSpec


def recurrent(w: Wiring, input: Any, hx: Any = None, *, module: Owner) -> tuple[Any, Any]:
    """``nn.LSTM``, ``nn.GRU`` and their like -> (sequence, last states)."""
    rnn = Facts.of(w.network.get_submodule(module.path))
    if rnn.cell not in CELLS:
        raise UnsupportedError(f"{rnn.mode} has no integer cell", "nn.GRU or nn.LSTM")
    _check_axes(w, input, rnn)
    columns = permutation(input.columns, input.inner)
    name = w.module_name(module.path)
    sizes = [part.size for part in input.side] or None
    path = module.path if sizes is None or not w.parts.there(module.path) else name
    stack = w.part(path, lambda: BorrowedStack(Borrowed(w.network), module.path, columns, sizes))
    specs = [spec for k, layer in enumerate(stack.layers) for spec in layer.state_specs(f"{name}.{k}")]
    w.states[name] = specs
    kinds = len(specs[0].name) and len({spec.name.rpartition(".")[2] for spec in specs})
    given = hx if isinstance(hx, tuple) else () if hx is None else (hx,)
    for k, part in enumerate(given):
        _start(w, part, specs[k::kinds], input, k)
    operands = [operand.t for operand in w.operands(input)]
    x = operands[0] if len(operands) == 1 else Apart(operands)
    if input.lengths is not None:
        w.a.ragged(input.lengths.t)
    for k, layer in enumerate(stack.layers):
        a = SumOfProducts(w.a, stack) if isinstance(x, Apart) else w.a
        x = layer.wire(a, w.a.dropout(x, stack.dropout) if k else x, f"{name}.{k}")
    last = stack.layers[-1].hidden
    size = last.size * (2 if rnn.bidirectional else 1)
    y = w.edge(x, "int8", (*input.dims[:2], (w.features(size),)), last)
    y = replace(y, lengths=input.lengths, time=input.time)
    states = tuple(_final(w, specs[k::kinds], name, k) for k in range(kinds)) if w.plan.reads_state(w.index) else ()
    if input.lengths is not None:
        w.a.ragged(None)
    return y, (states if kinds > 1 else states[0]) if states else None


class Apart(list[Any]):
    """Values side by side, each at a scale of its own."""


class SumOfProducts:
    """The executor for a layer that reads values that lie apart: each has its product, and their sum is requantized."""

    def __init__(self, a: Any, stack: BorrowedStack) -> None:
        self._a, self._stack = a, stack

    def __getattr__(self, word: str) -> Any:
        return getattr(self._a, word)

    def linear(self, module: Any, x: Any) -> Any:
        """Of values that lie apart the products, first the one with the bias."""
        if not isinstance(x, Apart):
            return self._a.linear(module, x)
        return Apart(self._a.linear(part, y) for part, y in zip(self._stack.parts_of(module), x, strict=True))

    def requantize(self, site: Any, *terms: Any) -> Any:
        """Of all terms."""
        flat = [part for term in terms for part in (term if isinstance(term, Apart) else (term,))]
        return self._a.requantize(site, *flat)

    def fused(self, layer: Any, x: Any, states: Any) -> Any:
        """A layer's fast way reads one value."""
        return None if isinstance(x, Apart) else self._a.fused(layer, x, states)


def _check_axes(w: Wiring, input: Any, rnn: Facts) -> None:
    if not isinstance(input, Edge) or input.time is None or len(input.dims) != 3:
        found = shown(input.dims) if isinstance(input, Edge) else "something else than a tensor"
        raise UnsupportedError(f"reads {found}, which has no axis of time", "a sequence [batch, time, size]")
    first = rnn.batch_first
    batch, time = input.dims[:2] if first else input.dims[1::-1]
    one = input.time is w.plan.step and time == ()
    if (time != (input.time,) and not one) or batch != (w.plan.batch,):
        raise UnsupportedError(
            f"takes {shown([batch])} for the batch and {shown([time])} for the time",
            f"batch_first={not rnn.batch_first}, or a transpose before",
        )


def _start(w: Wiring, part: Any, specs: list[StateSpec], input: Edge, kind: int) -> None:
    """A state that is given; zeros and states of the program need nothing."""
    if isinstance(part, Held):
        for k, spec in enumerate(specs):
            learned = constant(w, part, len(specs), k, spec.size, input, f"{w.step.name}.start_{kind}_{k}")
            w.a.start(spec, w.wide(learned).t)
        return
    if not isinstance(part, Edge):
        raise UnsupportedError("starts from something that is no tensor", "a state that is an argument of forward")
    if part.form in ("zero", "state"):
        return
    if part.time is not None or len(part.dims) != 3:
        raise UnsupportedError(f"starts from {shown(part.dims)}", "a state [layers * directions, batch, size]")
    for k, spec in enumerate(specs):
        piece = select(w, part, 0, k) if part.dims[0] else part
        w.a.start(spec, w.quantized(piece).t)


def _final(w: Wiring, specs: list[StateSpec], name: str, kind: int) -> Edge:
    """The states behind the last step, ``[layers * directions, batch, size]``: one kind of all layers."""
    size = w.features(specs[0].size)
    which = "hc"[kind]
    if (name, kind) in w.plan.carried():
        layers: tuple[Axis, ...] = () if len(specs) == 1 else (w.features(len(specs)),)
        form, t = "state", None
        return Edge(t, form, (layers, (w.plan.batch,), (size,)), (*layers, size), f"{name}.{which}", state=(name, kind))
    found = []
    for k, spec in enumerate(specs):
        form = "int8" if spec.site.bits <= 8 else "int16"
        own = w.features(spec.size)
        found.append(
            Edge(w.a.final(spec), form, ((), (w.plan.batch,), (own,)), (own,), f"{name}.{k}.{which}", site=spec.site)
        )
    if len(found) == 1:
        return found[0]
    number = w.features(len(found))
    pieces = tuple(replace(piece, dims=piece.dims[1:]) for piece in found)
    dims = ((number,), (w.plan.batch,), (size,))
    return Edge(None, found[0].form, dims, (number, size), f"{name}.{which}", pieces=pieces)


def pack(w: Wiring, input: Edge, lengths: Edge, batch_first: bool = False, enforce_sorted: bool = True) -> Edge:
    """``pack_padded_sequence``: the same sequence, and where it ends."""
    if not isinstance(lengths, Edge) or lengths.form != "lengths":
        raise UnsupportedError("packs by lengths that are no argument of forward", "lengths [batch] as an argument")
    return replace(input, lengths=lengths)


def unpack(w: Wiring, sequence: Edge, *args: Any, **kwargs: Any) -> tuple[Edge, Any]:
    """``pad_packed_sequence``: padding is 0."""
    assert sequence.lengths is not None
    x = sequence if sequence.accumulated else w.quantized(sequence)
    w.a.ragged(sequence.lengths.t)
    masked = w.a.mask(w.quantized(x).t)
    w.a.ragged(None)
    sizes = w.step.sizes[0]
    turned = [w.plan.axis(s) for s in sizes[:2]]
    dims = (*turned, *sequence.dims[2:])
    return replace(w.quantized(x).become(masked, dims=dims), lengths=None), sequence.lengths


OPERATIONS: dict[str, Callable[..., Any]] = {"recurrent": recurrent, "pack": pack, "unpack": unpack}
