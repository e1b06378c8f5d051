"""Recurrent modules: layers, directions, states given and taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from irnn.capture.borrowed import Borrowed, BorrowedStack
from irnn.capture.edges import Edge, permutation, shown
from irnn.capture.forms import Owner
from irnn.capture.wiring import UnsupportedError, Wiring
from irnn.nn.cells import CELLS


def recurrent(w: Wiring, input: Any, hx: Any = None, *, module: Owner) -> tuple[Any, Any]:
    """``nn.LSTM``, ``nn.GRU`` and their like -> (sequence, last states)."""
    rnn: Any = w.network.get_submodule(module.path)
    if rnn.mode.lower() not in CELLS:
        raise UnsupportedError(f"nn.{rnn.mode.partition('_')[0]} has no integer cell", "nn.GRU or nn.LSTM")
    if input.time is None or len(input.dims) != 3:
        raise UnsupportedError(
            f"reads {shown(input.dims)}, which has no axis of time", "a sequence [batch, time, size]"
        )
    batch, time = input.dims[:2] if rnn.batch_first else input.dims[1::-1]
    if time != (input.time,) or batch != (w.plan.batch,):
        raise UnsupportedError(
            f"takes {shown([batch])} for the batch and {shown([time])} for the time",
            f"batch_first={not rnn.batch_first}, or a transpose before",
        )
    columns = permutation(input.columns, input.inner)
    name = w.module_name(module.path)
    stack = w.part(module.path, lambda: BorrowedStack(Borrowed(w.network), module.path, columns))
    x = w.narrow(input).t
    specs = []
    for k, layer in enumerate(stack.layers):
        specs += layer.state_specs(f"{name}.{k}")
    w.states[name] = specs
    _given(w, hx)
    for k, layer in enumerate(stack.layers):
        x = layer.wire(w.a, w.a.dropout(x, stack.dropout) if k else x, f"{name}.{k}")
    last = stack.layers[-1].hidden
    size = last.size * (2 if rnn.bidirectional else 1)
    y = w.edge(x, "int8", (*input.dims[:2], (w.features(size),)), last)
    return y, None


def _given(w: Wiring, hx: Any) -> None:
    """A state that is given: zeros need nothing."""
    parts = hx if isinstance(hx, tuple) else () if hx is None else (hx,)
    for part in parts:
        if not isinstance(part, Edge) or part.form != "zero":
            raise UnsupportedError("starts from a state that is not zero", "a state of zeros")


OPERATIONS: dict[str, Callable[..., Any]] = {"recurrent": recurrent}
