"""Cells in a loop of one's own: what each step does is done for the whole sequence at once, and a cell is a layer.

A loop over time shows in a trace as the same calls again and again, each on one step.  A call on step t of a sequence
stands for the call on that sequence; a cell that starts from its own state of step t - 1 stands for a recurrent layer;
what is stacked in the end is the sequence.  A step that anything else reads is taken out of its sequence.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from irnn.capture.trace import Call, Reference, Trace, mapped

CELLS = (nn.LSTMCell, nn.GRUCell, nn.RNNCell)
# Functions and methods of each number by itself, and of values side by side.
STEPWISE = (
    torch.relu, torch.sigmoid, torch.tanh, nn.functional.relu, nn.functional.sigmoid, nn.functional.tanh,
    nn.functional.dropout, nn.functional.linear, nn.functional.hardtanh, operator.add, operator.sub, operator.mul,
    torch.add, torch.sub, torch.mul, "relu", "sigmoid", "tanh", "add", "sub", "mul",
)  # fmt: skip


@dataclass(frozen=True)
class Moment:
    """Step ``t`` of the sequence that the new call ``sequence`` gives, ``[batch, time, ...]``.

    ``unsqueezed``: with an axis of size 1 where the sequence has its time.
    """

    sequence: int
    t: int
    kind: str = "value"  # or cell: (h, c) of an LSTM; or c
    unsqueezed: bool = False


@dataclass(frozen=True)
class Stepped:
    """What an LSTM's cell by itself gives: places of h and c."""

    h: int
    c: int


def roll(trace: Trace, network: nn.Module) -> Trace:
    """The trace with its loops of cells as layers; one without cells as it is."""
    cells = [c for c in trace.calls if c.kind == "call_module" and isinstance(network.get_submodule(c.target), CELLS)]
    return _Roller(trace, network).rolled() if cells else trace


class _Roller:
    """Goes through the calls once; ``places`` says what each has become."""

    def __init__(self, trace: Trace, network: nn.Module) -> None:
        self.trace, self.network = trace, network
        self.calls: list[Call] = []
        self.places: dict[int, Any] = {}  # old call -> new place, or a Moment
        self.made: dict[Any, int] = {}  # what has been done for a whole sequence already
        self.last: dict[int, int] = {}  # h of a cell by itself -> the same as the state behind it, which is returned

    def rolled(self) -> Trace:
        for index, call in enumerate(self.trace.calls):
            self.places[index] = self._place(call)
        output = mapped(self.trace.output, lambda a: self._returned(a) if isinstance(a, Reference) else a)
        return Trace(self.calls, self.trace.constants, output, self.trace.problems)

    def _place(self, call: Call) -> Any:
        if call.kind == "call_module" and isinstance(self.network.get_submodule(call.target), CELLS):
            return self._cell(call)
        moment = self._step_of(call) or self._item(call) or self._stacked(call) or self._stepwise(call)
        return self._emit(call) if moment is None else moment

    def _found(self, argument: Any) -> Any:
        return self.places[argument.index] if isinstance(argument, Reference) else None

    def _step_of(self, call: Call) -> Moment | None:
        """``x[:, t]``, ``x[t]``, ``x.select(1, t)``, an item of ``x.unbind(1)``: one step of a plain sequence."""
        if call.target in (operator.getitem, "select", torch.select) and isinstance(call.value, Tensor):
            source = self._found(call.args[0])
            before = self.calls[source].value if isinstance(source, int) else None
            if isinstance(before, Tensor) and before.dim() == 3:
                place = _selected(call, before.dim())
                return None if place is None else self._moment(source, *place)
            unbound = isinstance(source, int) and self.calls[source].target in ("unbind", torch.unbind)
            if unbound and isinstance(call.args[1], int):
                origin = self.calls[source]
                dim = origin.kwargs.get("dim", origin.args[1] if len(origin.args) > 1 else 0)
                return self._moment(origin.args[0].index, dim, call.args[1])
        return None

    def _moment(self, source: int, dim: int, t: int) -> Moment | None:
        """Of a sequence that is turned so that its batch comes first."""
        value: Tensor = self.calls[source].value
        if dim not in (0, 1) or value.dim() != 3:
            return None
        if dim == 0:
            key = ("turned", source)
            if key not in self.made:
                like = self.calls[source]
                turned = Call(
                    "call_method", "transpose", (Reference(source), 0, 1), {}, f"{like.name}_turned", like.path,
                    like.where, value.transpose(0, 1),
                )  # fmt: skip
                self.made[key] = self._add(turned)
            source = self.made[key]
        return Moment(source, t % value.shape[dim])

    def _cell(self, call: Call) -> Any:
        """A layer, made at the first step; later steps go on where the one before has ended."""
        given = call.kwargs.get("hx", call.args[1] if len(call.args) > 1 else None)
        x, parts = self._found(call.args[0]), given if isinstance(given, (tuple, list)) else [given] if given else []
        states = [self._found(part) for part in parts]
        if isinstance(x, int) and all(isinstance(state, int) for state in states):
            return self._alone(call, x, [Reference(state) for state in states])
        if not isinstance(x, Moment):
            return self._emit(call)
        if x.t == 0 and not any(isinstance(state, Moment) for state in states):
            layer = self._layer(call, x, [Reference(state) for state in states])
        else:
            before = {state.sequence for state in states if isinstance(state, Moment) and state.t == x.t - 1}
            if len(before) != 1 or len(states) < len(parts) or not all(isinstance(s, Moment) for s in states):
                return self._emit(call)
            layer = before.pop() - 1
            if self.calls[layer].target != call.target or self.calls[layer].args[0] != Reference(x.sequence):
                return self._emit(call)
        lstm = isinstance(self.network.get_submodule(call.target), nn.LSTMCell)
        return Moment(layer + 1, x.t, "cell" if lstm else "value")

    def _layer(self, call: Call, x: Moment, states: list[Reference]) -> int:
        """The recurrent layer and, behind it, its sequence."""
        given = [
            Reference(self._add(Call(
                "call_method", "unsqueeze", (state, 0), {}, f"{call.name}_start", call.path, call.where,
                self.calls[state.index].value.unsqueeze(0),
            )))
            for state in states
        ]  # fmt: skip
        h = call.value[0] if isinstance(call.value, tuple) else call.value
        y = self._over_time(h, x)
        lstm = isinstance(call.value, tuple)
        after = (h.unsqueeze(0), h.unsqueeze(0)) if lstm else h.unsqueeze(0)
        hx: tuple[Any, ...] = ((tuple(given) if lstm else given[0]),) if given else ()
        args = (Reference(x.sequence), *hx)
        layer = self._add(Call("call_module", call.target, args, {}, call.name, call.path, call.where, (y, after)))
        first = Call("call_function", operator.getitem, (Reference(layer), 0), {}, f"{call.name}_y", "", call.where, y)
        assert self._add(first) == layer + 1
        return layer

    def _alone(self, call: Call, x: int, states: list[Reference]) -> Any:
        """A cell outside of any loop is a layer for one step: what a network that is called step by step does."""
        like, many = self.calls[x], isinstance(call.value, tuple)
        if like.value.dim() != 2:
            return self._emit(call)
        kinds = call.value if many else (call.value,)
        sequence = Reference(self._new(like, "unsqueeze", (Reference(x), 1), like.value.unsqueeze(1)))
        given = [
            Reference(self._new(call, "unsqueeze", (state, 0), self.calls[state.index].value.unsqueeze(0)))
            for state in states
        ]
        hx: tuple[Any, ...] = ((tuple(given) if many else given[0]),) if given else ()
        after = tuple(kind.unsqueeze(0) for kind in kinds)
        value = (kinds[0].unsqueeze(1), after if many else after[0])
        layer = Reference(
            self._add(Call("call_module", call.target, (sequence, *hx), {}, call.name, call.path, call.where, value))
        )
        y = self._new(call, operator.getitem, (layer, 0), value[0])
        ends = [self._new(call, operator.getitem, (layer, 1), value[1])]
        if many:
            ends = [self._new(call, operator.getitem, (Reference(ends[0]), k), after[k]) for k in (0, 1)]
        last = [self._new(call, "squeeze", (Reference(end), 0), kind) for end, kind in zip(ends, kinds, strict=True)]
        h = self._new(call, "squeeze", (Reference(y), 1), kinds[0])
        self.last[h] = last[0]
        return Stepped(h, last[1]) if many else h

    def _returned(self, argument: Reference) -> Any:
        """What leaves the network: a cell's state as such."""
        place = self.places[argument.index]
        if isinstance(place, Stepped):
            return Reference(self.last[place.h]), Reference(place.c)
        return Reference(self.last[place]) if isinstance(place, int) and place in self.last else self._taken(place)

    def _item(self, call: Call) -> Any:
        """h or c of a cell's pair."""
        if call.target is not operator.getitem:
            return None
        pair = self._found(call.args[0])
        if isinstance(pair, Stepped):
            return pair.c if call.args[1] == 1 else pair.h
        if not isinstance(pair, Moment) or pair.kind != "cell":
            return None
        return Moment(pair.sequence, pair.t, "c" if call.args[1] == 1 else "value")

    def _stacked(self, call: Call) -> int | None:
        """``torch.stack`` of every step, ``torch.cat`` of every step with an axis for time: the sequence."""
        if call.target not in (torch.stack, torch.cat, torch.concat) or not call.args:
            return None
        parts = [self._found(part) for part in call.args[0]]
        dim = call.kwargs.get("dim", call.args[1] if len(call.args) > 1 else 0) % call.value.dim()
        first = parts[0] if parts else None
        if not isinstance(first, Moment) or dim > 1 or first.unsqueezed != (call.target is not torch.stack):
            return None
        steps = self.calls[first.sequence].value.shape[1]
        if parts != [Moment(first.sequence, t, "value", first.unsqueezed) for t in range(steps)]:
            return None
        if dim == 1:
            return first.sequence
        whole = (Reference(first.sequence), 0, 1)
        return self._add(Call("call_method", "transpose", whole, {}, call.name, call.path, call.where, call.value))

    def _stepwise(self, call: Call) -> Moment | None:
        """The same call for the whole sequence, once."""
        found: list[Moment] = []
        plain: list[int] = []

        def look(argument: Any) -> Any:
            if isinstance(argument, Reference):
                place = self.places[argument.index]
                (found if isinstance(place, Moment) else plain).append(place)
                return place.sequence if isinstance(place, Moment) else ("plain", place)
            return argument

        key_args = mapped((call.args, call.kwargs), look)
        if not found or len({m.t for m in found}) > 1 or any(m.kind != "value" or m.unsqueezed for m in found):
            return None
        if call.target == "unsqueeze" and call.args[1:] == (1,):
            return Moment(found[0].sequence, found[0].t, unsqueezed=True)
        if not isinstance(call.value, Tensor) or call.value.dim() != 2 or not self._is_stepwise(call, plain):
            return None
        key = (call.kind, call.target, repr(key_args))
        if key not in self.made:
            args, kwargs = mapped(
                (call.args, call.kwargs),
                lambda a: (
                    Reference(look(a) if isinstance(look(a), int) else look(a)[1]) if isinstance(a, Reference) else a
                ),
            )
            if call.target in (torch.cat, torch.concat):
                kwargs, args = {"dim": -1}, args[:1]
            value = self._over_time(call.value, found[0])
            made = Call(call.kind, call.target, args, kwargs, call.name, call.path, call.where, value)
            self.made[key] = self._add(made)
        return Moment(self.made[key], found[0].t)

    def _is_stepwise(self, call: Call, plain: list[int]) -> bool:
        if call.target in (torch.cat, torch.concat):
            dim = call.kwargs.get("dim", call.args[1] if len(call.args) > 1 else 0)
            return dim in (1, -1) and not plain
        parameters = all(self.calls[place].kind == "get_attr" for place in plain)
        if call.kind == "call_module":
            kinds = (nn.Linear, nn.Dropout, nn.ReLU, nn.Tanh, nn.Sigmoid, nn.LayerNorm, nn.Identity, nn.Hardtanh)
            return isinstance(self.network.get_submodule(call.target), kinds)
        return parameters and call.target in STEPWISE

    def _over_time(self, value: Tensor, moment: Moment) -> Tensor:
        steps = self.calls[moment.sequence].value.shape[1]
        return value.new_empty(value.shape[0], steps, *value.shape[1:])

    def _emit(self, call: Call) -> int:
        """The call as it is; moments that it reads are taken out of their sequences."""
        args, kwargs = self._plain((call.args, call.kwargs))
        return self._add(Call(call.kind, call.target, args, kwargs, call.name, call.path, call.where, call.value))

    def _plain(self, structure: Any) -> Any:
        return mapped(structure, lambda a: self._taken(self.places[a.index]) if isinstance(a, Reference) else a)

    def _taken(self, place: Any) -> Any:
        if isinstance(place, Stepped):
            return Reference(place.h), Reference(place.c)
        if not isinstance(place, Moment):
            return Reference(place)
        if place.kind == "cell":
            return tuple(self._taken(Moment(place.sequence, place.t, kind)) for kind in ("value", "c"))
        key = ("taken", place)
        if key not in self.made:
            self.made[key] = self._take(place)
        return Reference(self.made[key])

    def _take(self, place: Moment) -> int:
        like = self.calls[place.sequence]
        step = like.value[:, place.t]
        if place.kind == "c":
            layer = place.sequence - 1
            states, c = self.calls[layer].value[1], self.calls[layer].value[1][1]
            pair = self._new(like, operator.getitem, (Reference(layer), 1), states)
            last = self._new(like, operator.getitem, (Reference(pair), 1), c)
            return self._new(like, "squeeze", (Reference(last), 0), c[0])
        return self._new(like, "select", (Reference(place.sequence), 1, place.t), step)

    def _new(self, like: Call, target: Any, args: tuple[Any, ...], value: Any) -> int:
        kind = "call_method" if isinstance(target, str) else "call_function"
        return self._add(Call(kind, target, args, {}, f"{like.name}_{len(self.calls)}", like.path, like.where, value))

    def _add(self, call: Call) -> int:
        self.calls.append(call)
        return len(self.calls) - 1


def _selected(call: Call, rank: int) -> tuple[int, int] | None:
    """(dimension, place) where a call takes one step of a tensor and all of the rest."""
    if call.target != operator.getitem:
        return (call.args[1] % rank, call.args[2]) if all(isinstance(a, int) for a in call.args[1:3]) else None
    index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    fixed = [(k, i) for k, i in enumerate(index) if not (isinstance(i, slice) and i == slice(None))]
    return fixed[0] if len(fixed) == 1 and isinstance(fixed[0][1], int) and Ellipsis not in index else None
