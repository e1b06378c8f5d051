"""What a network does, as plain data: its calls under one name each, its inputs with their axes, its outputs.

A plan knows the network's modules by their paths alone, so that a prepared network can be copied and saved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from irnn.capture.axes import Run, Runs, Sizes, Varying, explore
from irnn.capture.edges import Axis, Dimension
from irnn.capture.forms import Owner, normalize
from irnn.capture.loops import roll
from irnn.capture.trace import Example, Packed, Reference, mapped, trace

# Operations that hand their value on: who reads them reads what they read.
GLUE = (
    "same", "dropout", "reshape", "flatten", "unflatten", "transpose", "transpose_2", "permute", "squeeze", "unsqueeze",
    "getitem", "select", "narrow", "expand", "log_softmax", "softmax", "unpack",
)  # fmt: skip


COUNTING = ("lt", "gt", "le", "ge", "sub", "div")  # what is done with lengths, not with ids
TIMES = ("time", "second", "third", "fourth")  # what programs call the lengths that inputs have of their own


@dataclass
class Step:
    """One operation of the network that its outputs need."""

    op: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    name: str
    path: str
    where: str
    sizes: Any  # of the result, in its structure: a tuple of vectors for each tensor


@dataclass
class Input:
    """One tensor of ``forward``'s arguments.  kind: real, ids (below ``count``), lengths, state or unused."""

    name: str
    dims: tuple[Dimension, ...]
    inner: tuple[Axis, ...]
    time: Axis | None
    kind: str
    dtype: torch.dtype
    count: int = 0
    counts: str = "time"  # of lengths: the axis that they count
    state: tuple[str, int] | None = None  # the recurrent step whose state it is before, and which of them


@dataclass
class Plan:
    """The network's steps; a :class:`Reference` in their arguments is the place of a step."""

    steps: dict[int, Step]
    inputs: dict[int, Input]  # by their step
    output: Any
    batch: Axis
    times: list[Axis]
    constants: dict[str, Tensor]
    runs: int
    step: Axis | None = None  # of a network without any length: the time that its recurrent modules see, one step
    problems: list[tuple[str, str, str]] = field(default_factory=list)  # (path, where, reason) of the whole
    _readers: dict[int, set[str]] = field(default_factory=dict, repr=False)  # what `readers` has found

    def axis(self, sizes: Sizes) -> Dimension:
        """The dimension of these sizes, as far as it is known: batch, a time, or features."""
        if all(size == 1 for size in sizes):
            return ()
        if sizes == self.batch.sizes:
            return (self.batch,)
        time = next((axis for axis in self.times if axis.sizes == sizes), None)
        return (Axis("size", sizes) if time is None else time,)

    def derived(self, sizes: Sizes) -> Dimension:
        """As :meth:`axis`, where another length than the known ones is a time, too (that of a convolution's output)."""
        (*found,) = self.axis(sizes)
        if found and found[0].kind == "size" and len(set(sizes)) > 1:
            self.times.append(Axis("time", sizes))
            return (self.times[-1],)
        return tuple(found)

    def direct_readers(self, index: int) -> list[int]:
        """Steps that have it as an argument."""
        return [k for k, step in self.steps.items() if index in _references((step.args, step.kwargs))]

    def returns(self, index: int) -> bool:
        """Whether it is an output as it is."""
        return index in _references(self.output)

    def folds(self, index: int) -> bool:
        """Whether a batch norm is part of the convolution that it reads: nothing else reads that."""
        source = self.steps[index].args[0].index
        return self.steps[source].op == "conv" and self.direct_readers(source) == [index] and not self.returns(source)

    def reads_state(self, index: int) -> bool:
        """Whether anything reads the last states of a recurrent step."""
        return self.returns(index) or any(
            self.steps[k].op != "getitem" or self.steps[k].args[1] == 1 for k in self.direct_readers(index)
        )

    def kinds(self, index: int) -> int:
        """How many states a recurrent step has: h, or h and c."""
        states = self.steps[index].sizes[1]
        return len(states) if isinstance(states, list) else 1

    def state_places(self, index: int, kind: int) -> list[int]:
        """The steps that are one kind of the last states of a recurrent step."""
        whole = [k for k in self.direct_readers(index) if self.steps[k].op == "getitem" and self.steps[k].args[1] == 1]
        if self.kinds(index) > 1:
            parts = [k for w in whole for k in self.direct_readers(w) if self.steps[k].op == "getitem"]
            whole = [*whole, *(k for k in parts if self.steps[k].args[1] == kind)]
        return [*whole, *(k for w in whole for k in self.direct_readers(w) if self.steps[k].op == "squeeze")]

    def only_returned(self, index: int, kind: int) -> bool:
        """Whether the last states of a kind leave the network and nothing else reads them."""
        places = self.state_places(index, kind)
        reading = {k for place in places for k in self.direct_readers(place)} - set(places)
        others = {k for k in reading if self.steps[k].op != "getitem" or self.steps[k].args[1] == kind}
        return any(map(self.returns, places)) and not others

    def start_of(self, index: int, kind: int) -> int | None:
        """The input that a recurrent step starts from, where nothing else reads it."""
        step = self.steps[index]
        given = step.kwargs.get("hx", step.args[1] if len(step.args) > 1 else None)
        part = given[kind] if isinstance(given, (tuple, list)) and kind < len(given) else given
        seen = [index]
        while isinstance(part, Reference) and self.steps[part.index].op == "unsqueeze":
            seen, part = [part.index], self.steps[part.index].args[0]
        if not isinstance(part, Reference) or part.index not in self.inputs:
            return None
        return part.index if self.direct_readers(part.index) == seen and not self.returns(part.index) else None

    def carry(self) -> None:
        """Find the states of the program: inputs that recurrent steps start from and give back as outputs."""
        for index, step in self.steps.items():
            if step.op == "recurrent":
                for kind in range(self.kinds(index)):
                    start = self.start_of(index, kind)
                    if start is not None and self.inputs[start].time is self.step:
                        self.inputs[start].time = None  # a state stands before the step
                    if start is not None and self.only_returned(index, kind):
                        self.inputs[start].kind, self.inputs[start].state = "state", (step.name, kind)

    def carried(self) -> set[tuple[str, int]]:
        """(recurrent step, kind) of the states of the program."""
        return {spec.state for spec in self.inputs.values() if spec.state is not None}

    def readers(self, index: int) -> set[str]:
        """What reads a step in the end, through glue: names of operations, "output" among them."""
        if index not in self._readers:
            found = {"output"} if self.returns(index) else set()
            for k in self.direct_readers(index):
                found |= self.readers(k) if self.steps[k].op in GLUE else {self.steps[k].op}
            self._readers[index] = found
        return self._readers[index]


def make_plan(network: nn.Module, example: Example) -> Plan:
    """Explore the network and keep what its outputs need."""
    runs = explore(network, example)
    calls, traces = runs.base.calls, runs.traces
    alive = _needed(runs)
    ones = len(traces)
    axes = [_changed_axis(run, runs, example) for run in runs.varied]
    batch = next((axis for axis in axes if axis.kind == "batch"), Axis("batch", (0,) * ones))
    times = [axis for axis in axes if axis.kind == "time"]
    times = [Axis("time", axis.sizes, name) for axis, name in zip(times, TIMES, strict=False)]
    plan = Plan({}, {}, runs.base.output, batch, times, runs.base.constants, ones)
    if not times and not runs.unrolled:
        plan.step = Axis("time", (1,) * ones, TIMES[0])
    taken: set[str] = set()
    for index in sorted(alive):
        call = calls[index]
        op, args, kwargs = normalize(call, network)
        args, kwargs = _merged([normalize(t.calls[index], network)[1:] for t in traces], args, kwargs, op)
        name = _name(call, taken)
        plan.steps[index] = Step(op, args, kwargs, name, call.path, call.where, _sizes(runs, index))
    for index, call in enumerate(calls):
        if call.kind == "placeholder":
            if index not in plan.steps:
                plan.steps[index] = Step("placeholder", (call.target,), {}, call.name, "", "", _sizes(runs, index))
            plan.inputs[index] = _input(plan, network, index, call)
    plan.carry()
    plan.problems += runs.base.problems
    plan.problems += _baked(runs, network, example, plan)
    return plan


def _name(call: Any, taken: set[str]) -> str:
    """A module's path, a function's name under the path of the module that calls it; with a number if it is taken."""
    name = call.path if call.kind == "call_module" else f"{call.path}.{call.name}" if call.path else call.name
    first, number = name, 1
    while name in taken:
        number += 1
        name = f"{first}~{number}"
    taken.add(name)
    return name


def _needed(runs: Runs) -> set[int]:
    """The calls of which the outputs are made."""
    alive, waiting = set(), [*_references(runs.base.output)]
    while waiting:
        index = waiting.pop()
        if index not in alive:
            alive.add(index)
            call = runs.base.calls[index]
            waiting += _references((call.args, call.kwargs))
    return alive


def _references(structure: Any) -> list[int]:
    found: list[int] = []
    mapped(structure, lambda a: found.append(a.index) if isinstance(a, Reference) else a)
    return found


def _merged(found: list[tuple[Any, Any]], args: Any, kwargs: Any, op: str) -> tuple[Any, Any]:
    """Arguments with :class:`Varying` where the runs differ; ``_stacklevel`` and its like are torch's own."""
    if len(found) == 1 or op in ("reshape", "zeros", "expand", "unflatten", "unpack"):  # the result's sizes say it
        return args, {k: v for k, v in kwargs.items() if not k.startswith("_")}
    merged = _merge([args for args, _ in found])
    return merged, {k: _merge([kwargs[k] for _, kwargs in found]) for k in kwargs if not k.startswith("_")}


def _merge(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, slice):
        return slice(*(_merge([getattr(v, key) for v in values]) for key in ("start", "stop", "step")))
    if isinstance(first, (tuple, list)) and all(len(v) == len(first) for v in values):
        return type(first)(_merge(list(parts)) for parts in zip(*values, strict=True))
    if isinstance(first, int) and any(v != first for v in values):
        return Varying(tuple(values))
    return first


def _sizes(runs: Runs, index: int) -> Any:
    """Sizes of every tensor of a call's value."""

    def collect(values: list[Any]) -> Any:
        first = values[0]
        if isinstance(first, Packed):
            return collect([v.x for v in values])
        if isinstance(first, Tensor):
            return tuple(zip(*(tuple(v.shape) for v in values), strict=True)) if first.dim() else ()
        if isinstance(first, (tuple, list)):
            return [collect(list(parts)) for parts in zip(*values, strict=True)]
        return None

    return collect([t.calls[index].value for t in runs.traces])


def _changed_axis(run: Run, runs: Runs, example: Example) -> Axis:
    """The axis that a run has changed, with its sizes in all runs."""
    leaf, dimension = run.places[0]
    at = example.tensors.index(leaf)
    sizes = []
    for t in runs.traces:
        placeholders = [call for call in t.calls if call.kind == "placeholder"]
        sizes.append(placeholders[at].value.shape[dimension])
    return Axis(run.axis, tuple(sizes))


def _input(plan: Plan, network: nn.Module, index: int, call: Any) -> Input:
    value: Tensor = call.value
    dims = tuple(plan.axis(sizes) for sizes in plan.steps[index].sizes)
    inner = tuple(axis for dimension in dims for axis in dimension if axis.kind == "size")
    time = next((axis for dimension in dims for axis in dimension if axis.kind == "time"), plan.step)
    if any(step.op == "conv" and _through(plan, step.args[0]) == index for step in plan.steps.values()):
        # Channels lie innermost where a convolution reads them.
        inner = tuple(axis for d in (*dims[2:], *dims[1:2]) for axis in d if axis.kind == "size")
    if not plan.direct_readers(index) and not plan.returns(index):
        return Input(call.target, dims, inner, time, "unused", value.dtype)
    if value.is_floating_point():
        return Input(call.target, dims, inner, time, "real", value.dtype)
    for step in plan.steps.values():
        if step.op == "one_hot" and _through(plan, step.args[0]) == index:
            return Input(call.target, dims, inner, time, "ids", value.dtype, step.sizes[-1][0])
        if step.op == "embedding" and _through(plan, step.args[0]) == index:
            table = network.get_parameter(step.kwargs["weight"].path) if "weight" in step.kwargs else None
            count = 0 if table is None else len(table)
            return Input(call.target, dims, inner, time, "ids", value.dtype, count)
        if step.op == "pack" and _through(plan, step.args[1]) == index:
            packed = [axis for sizes in step.sizes for axis in plan.axis(sizes) if axis.kind == "time"]
            counts = packed[0].name if packed else "time"
            return Input(call.target, dims, inner, time, "lengths", value.dtype, counts=counts)
    uses = [step.op for step in plan.steps.values() if any(_through(plan, a) == index for a in step.args)]
    if dims == ((plan.batch,),) and any(op in COUNTING for op in uses):
        return Input(call.target, dims, inner, None, "lengths", value.dtype, counts=TIMES[0])
    return Input(call.target, dims, inner, time, "ids", value.dtype)


def _through(plan: Plan, argument: Any) -> int | None:
    """The step that an argument is, seen through glue."""
    while isinstance(argument, Reference) and plan.steps[argument.index].op in GLUE:
        argument = plan.steps[argument.index].args[0]
    return argument.index if isinstance(argument, Reference) else None


def _baked(runs: Runs, network: nn.Module, example: Example, plan: Plan) -> Iterator[tuple[str, str, str]]:
    """What keeps batch or length from changing, in words."""
    for run in runs.unrolled:
        calls, others = runs.base.calls, run.trace.calls
        first = next((k for k, (a, b) in enumerate(zip(calls, others, strict=False)) if a.target != b.target), None)
        call = calls[first if first is not None else min(len(calls), len(others)) - 1]
        size = example.leaves[run.places[0][0]].shape[run.places[0][1]]
        yield (
            call.path,
            call.where,
            (
                f"a loop is unrolled over an axis of {size}: {len(calls)} operations, {len(others)} at another size; "
                "the length is baked in, use nn.LSTM, nn.GRU or a cell in a plain loop over time"
            ),
        )
    if not plan.batch.sizes[0] and not runs.unrolled:
        yield "", "", _why("the batch", runs, example)
    if (place := _training_differs(runs, network, example)) is not None:
        yield place
    lengths = [run for run in runs.varied if run.axis == "time"]
    if len(lengths) > len(TIMES):
        yield "", "", f"takes sequences of {len(lengths)} lengths of their own; a program has up to {len(TIMES)}"
    recurrent = [step for step in plan.steps.values() if step.op == "recurrent"]
    if any(not _of_one_step(step, network) for step in recurrent) and not plan.times and not runs.unrolled:
        yield recurrent[0].path, recurrent[0].where, _why("the length", runs, example)


def _of_one_step(step: Step, network: nn.Module) -> bool:
    """Whether a recurrent module sees sequences of a single step."""
    module: Any = network.get_submodule(step.kwargs["module"].path)
    sizes = step.sizes[0]
    return len(sizes) == 3 and set(sizes[1 if getattr(module, "batch_first", True) else 0]) == {1}


def _training_differs(runs: Runs, network: nn.Module, example: Example) -> tuple[str, str, str] | None:
    """Where ``train()`` makes the network do other things."""
    try:
        training = roll(trace(network, example, training=True), network).calls
    except Exception:  # as a batch norm that one row does not suffice
        return None
    for ours, theirs in zip_longest(runs.base.calls, training):
        if ours is None or theirs is None or (ours.kind, ours.target) != (theirs.kind, theirs.target):
            call = theirs or ours
            return call.path, call.where, "does other things in train() than in eval(); one program cannot do both"
    return None


def _why(what: str, runs: Runs, example: Example) -> str:
    tried = [
        f"{example.names[leaf]} at {example.leaves[leaf].shape[d] + 1} along dimension {d}: {error}"
        for (leaf, d), error in runs.failures.items()
    ]
    return f"{what} is baked in: no input can have another one ({'; '.join(tried) or 'there is no free dimension'})"


__all__ = ["GLUE", "Input", "Owner", "Plan", "Step", "make_plan"]
