"""Which axis of every tensor is the batch, which is time: found by running the network on inputs of other sizes.

Each dimension of an input that can be changed (alone, or together with one of the same size in other inputs) is free;
the recurrent modules and convolutions that read it say what it is.  A size is then the vector of its values in all
runs: what grows with the time-varied run is a time, and nothing that depends on a length is taken for a number.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from irnn.capture.loops import CELLS, roll
from irnn.capture.trace import RECURRENT, Example, NumbersAskedError, Packed, Trace, trace
from irnn.nn.torch_interface.parameters import TorchParameters

Sizes = tuple[int, ...]  # of one dimension, a number a run
Place = tuple[int, int]  # (leaf, dimension) of an input


@dataclass(frozen=True)
class Varying:
    """An argument that depends on the inputs' sizes: its values in the runs."""

    values: Sizes


@dataclass
class Run:
    """A run with some sizes changed."""

    places: tuple[Place, ...]
    trace: Trace
    axis: str = ""  # batch, time, or nothing that is known


@dataclass
class Runs:
    """The run on the example and one for each free axis that is a batch or a time; ``failures``: of other places."""

    base: Trace
    varied: list[Run]
    unrolled: list[Run] = field(default_factory=list)
    failures: dict[Place, str] = field(default_factory=dict)

    def sizes(self, of: Any, index: int) -> tuple[Sizes, ...]:
        """Sizes of the dimensions of a tensor of call ``index``; ``of`` takes it out of the call's value."""
        values = [of(t.calls[index].value) for t in self.traces]
        return tuple(zip(*(v.shape for v in values), strict=True))

    @property
    def traces(self) -> list[Trace]:
        """All runs that did the same."""
        return [self.base, *(run.trace for run in self.varied)]

    def ones(self) -> Sizes:
        """The sizes of a dimension that is 1."""
        return (1,) * len(self.traces)


def explore(network: nn.Module, example: Example) -> Runs:
    """Run the network on the example and on other sizes of every input's dimensions."""
    base = roll(trace(network, example), network)
    runs = Runs(base, [])
    known: set[Place] = set()
    for leaf in example.tensors:
        for dimension in range(example.leaves[leaf].dim()):
            if (leaf, dimension) not in known:
                run = _free(network, example, (leaf, dimension), known, runs)
                if run is not None:
                    known |= set(run.places)
                    (runs.varied if run.trace.signature == base.signature else runs.unrolled).append(run)
    _name_axes(network, runs)
    runs.varied = [run for run in runs.varied if run.axis]
    return runs


def _free(network: nn.Module, example: Example, place: Place, known: set[Place], runs: Runs) -> Run | None:
    """The run in which this dimension (and those that go with it) has another size; None where it cannot."""
    size = example.leaves[place[0]].shape[place[1]]
    for places in _together(example, place, known):
        for other in (2 * size, size + 1):  # twice as long, so that what a stride leaves is longer, too
            try:
                return Run(places, roll(trace(network, example.with_sizes(dict.fromkeys(places, other))), network))
            except NumbersAskedError:
                raise
            except Exception as error:
                if places == (place,):
                    runs.failures.setdefault(place, str(error).split("\n")[0])
    return None


def _together(example: Example, place: Place, known: set[Place]) -> Iterator[tuple[Place, ...]]:
    """Dimensions that may be one axis with ``place``: one of the same size in other inputs each, most of them first."""
    size = example.leaves[place[0]].shape[place[1]]
    choices: list[list[Place | None]] = []
    for leaf in example.tensors:
        if leaf > place[0]:
            same = [(leaf, d) for d, n in enumerate(example.leaves[leaf].shape) if n == size and (leaf, d) not in known]
            choices.append([*same, None])
    combinations = [(place, *(p for p in others if p is not None)) for others in itertools.product(*choices)]
    yield from sorted(combinations, key=len, reverse=True)


def _name_axes(network: nn.Module, runs: Runs) -> None:
    """Say of each run which axis it has changed, by what the modules that read it take for batch and time.

    What recurrent modules say counts before what convolutions do: an image's height is no time where its width is.
    """
    surest: dict[str, int] = {}
    found: list[tuple[Run, str, int]] = []
    for run in runs.varied:
        votes = [
            (sure, role)
            for index, call in enumerate(runs.base.calls)
            for role, dimension, of, sure in _read_axes(network, call)
            if of(call).shape[dimension] != of(run.trace.calls[index]).shape[dimension]
        ]
        if votes:
            sure, role = max(votes, key=operator.itemgetter(0))
            found.append((run, role, sure))
            surest[role] = max(surest.get(role, 0), sure)
    for run, role, sure in found:
        run.axis = role if sure == surest[role] else ""
    named = {run.axis for run in runs.varied}
    voted = [run for run, _, _ in found]
    for axis in ("batch", "time"):
        if axis not in named:
            free = [run for run in runs.varied if not run.axis and run not in voted]
            first = next((run for run in free if axis != "batch" or run.places[0][1] == 0), None)
            if first is not None:
                first.axis = axis
    runs.varied.sort(key=lambda run: ("batch", "time", "").index(run.axis))


def _read_axes(network: nn.Module, call: Any) -> Iterator[tuple[str, int, Any, int]]:
    """(axis, dimension, tensor of a call, how sure) that an operation by its kind knows."""
    if call.kind != "call_module":
        return
    module = network.get_submodule(call.target)
    first = _first_output
    if isinstance(module, (*RECURRENT, *CELLS, TorchParameters)) and first(call).dim() == 3:
        packed = call.value[0]
        batch_first = packed.batch_first if isinstance(packed, Packed) else getattr(module, "batch_first", True)
        yield "batch", 0 if batch_first else 1, first, 2
        yield "time", 1 if batch_first else 0, first, 2
    elif isinstance(module, (nn.Conv1d, nn.Conv2d)):
        yield "batch", 0, first, 2
        for dimension in range(2, first(call).dim()):
            yield "time", dimension, first, 1
    elif isinstance(module, nn.RNNCellBase):
        yield "batch", 0, first, 2


def _first_output(call: Any) -> Tensor:
    value = call.value
    while not isinstance(value, Tensor):
        value = value.x if isinstance(value, Packed) else value[0]
    return value
