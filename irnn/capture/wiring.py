"""Executes a plan in an executor's words: training, calibration and both recorders run the same text.

The first time it is executed by :class:`Planner`, which computes nothing: then parts and sites come into being, where a
reader of a value wants another form than the one it has; one site for each producer and form.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from torch import nn

from irnn.capture.edges import Axis, Dimension, Edge, shown
from irnn.capture.forms import Held
from irnn.capture.plan import GLUE, Plan, Step
from irnn.capture.trace import Fields, Reference, mapped
from irnn.errors import IrnnError
from irnn.nn.linear import Weight
from irnn.quant.site import QuantSite
from irnn.wiring.executor import StateSpec

M = TypeVar("M", bound=nn.Module)
# What takes a parameter as its first argument.
READS_PARAMETERS = (
    "same", "add", "sub", "mul", "expand", "repeat", "unsqueeze", "reshape", "transpose", "transpose_2", "permute",
    "getattr", "lt", "gt", "le", "ge", "getitem", "squeeze",
)  # fmt: skip
# Sums and outputs at 16 bits may pass what calibration has seen so many times; of 16 bits one is no loss.
WIDE_HEADROOM = 2.0


class UnsupportedError(IrnnError):
    """An operation that has no integer form; ``nearest``: one that has, in words."""

    def __init__(self, reason: str, nearest: str = "") -> None:
        super().__init__(reason)
        self.nearest = nearest


class Planner:
    """An executor that computes nothing: every word gives a value of which nothing is known."""

    def __getattr__(self, word: str) -> Callable[..., Any]:
        if word.startswith("__"):
            raise AttributeError(word)
        if word == "split":
            return lambda x, parts: (self,) * parts
        return lambda *args, **kwargs: self


@dataclass
class Row:
    """What has been said of one step: its integer form, or why it has none."""

    name: str
    op: str
    path: str
    where: str
    shape: str
    form: str = ""
    problem: str = ""
    nearest: str = ""
    sites: list[QuantSite] = field(default_factory=list)
    weights: list[Any] = field(default_factory=list)


class Parts(nn.Module):
    """Parts and sites by their paths, in a tree of plain modules."""

    def place(self, path: str, part: nn.Module) -> None:
        """Register ``part`` under ``path``."""
        *folders, name = path.split(".")
        at: nn.Module = self
        for folder in folders:
            if folder not in at._modules:
                at.add_module(folder, nn.Module())
            at = at.get_submodule(folder)
        at.add_module(name, part)

    def there(self, path: str) -> nn.Module | None:
        """The part, or None."""
        at: nn.Module | None = self
        for name in path.split("."):
            at = None if at is None else at._modules.get(name)
        return at


class Wiring:
    """One execution of a plan by the executor ``a``.  ``rows``: with a Planner, what is said of each step."""

    def __init__(
        self, plan: Plan, network: nn.Module, parts: Parts, a: Any, rows: list[Row] | None = None, norm: str = ""
    ) -> None:
        self.norm = norm  # what a LayerNorm becomes
        self.plan, self.network, self.parts, self.a, self.rows = plan, network, parts, a, rows
        self.values: dict[int, Any] = {}
        self.step: Step = Step("", (), {}, "", "", "", ())
        self.index = 0
        self.states: dict[str, list[StateSpec]] = {}  # of each recurrent step, in torch's order
        self._row: Row | None = None

    @property
    def planning(self) -> bool:
        """Whether parts are made now."""
        return self.rows is not None

    def run(self, operations: dict[str, Callable[..., Any]], inputs: dict[int, Any]) -> Any:
        """Execute every step; the outputs in the network's structure, :class:`Edge` for tensors."""
        self.values.update(inputs)
        for index, step in self.plan.steps.items():
            if index in inputs:
                self._note_input(step, inputs[index])
                continue
            self.index, self.step = index, step
            if self.rows is None:
                self.values[index] = self._lower(operations)
            else:
                self.values[index] = self._judged(operations)
        return mapped(self.plan.output, self.read)

    def read(self, argument: Any) -> Any:
        """The value that an argument stands for."""
        return self.values[argument.index] if isinstance(argument, Reference) else argument

    def _lower(self, operations: dict[str, Callable[..., Any]]) -> Any:
        step = self.step
        args, kwargs = mapped((step.args, step.kwargs), self.read)
        if step.op not in operations:
            raise UnsupportedError("has no integer form", nearest_operation(step.op))
        if step.op not in GLUE:
            mapped((args, kwargs), _refuse_tail)
        operation = operations[step.op]
        if args and isinstance(args[0], Held) and step.op not in READS_PARAMETERS:
            raise UnsupportedError(f"works on the parameter {args[0].path}", "values of the network")
        if self.planning:
            try:
                inspect.signature(operation).bind(self, *args, **kwargs)
            except TypeError as error:
                raise UnsupportedError(f"is called in a way that has no integer form ({error})") from None
        return operation(self, *args, **kwargs)

    def _judged(self, operations: dict[str, Callable[..., Any]]) -> Any:
        """The step's value; where it has none, a row that says why, and a value of its shape to go on with."""
        step = self.step
        assert self.rows is not None
        self._row = Row(step.name, step.op, step.path, step.where, self._shape())
        if step.op not in ("get_attr",):
            self.rows.append(self._row)
        try:
            value = self._lower(operations)
            self._row.form = self._row.form or _form(value)
            return value
        except IrnnError as error:
            self._row.problem, self._row.nearest = str(error), getattr(error, "nearest", "")
            if self._row not in self.rows:
                self.rows.append(self._row)
        return self._assumed(step.sizes)

    def _shape(self) -> str:
        first = self.step.sizes
        while isinstance(first, list):
            first = first[0]
        return "" if first is None else shown([self.plan.derived(sizes) for sizes in first])

    def _note_input(self, step: Step, value: Any) -> None:
        if self.rows is not None:
            sites = [value.site] if isinstance(value, Edge) and value.site is not None else []
            shape = shown(value.dims) if isinstance(value, Edge) else ""
            self.rows.append(Row(step.name, "input", "", "", shape, _form(value), sites=sites))

    def _assumed(self, sizes: Any) -> Any:
        """Accumulators of these sizes, where nothing better is known."""
        if isinstance(sizes, list):
            return tuple(self._assumed(part) for part in sizes)
        if sizes is None:
            return None
        return self.edge(self.a, "sum", tuple(self.plan.derived(s) for s in sizes))

    def edge(self, t: Any, form: str, dims: tuple[Dimension, ...], site: QuantSite | None = None) -> Edge:
        """A new value of the step's."""
        inner = tuple(axis for dimension in dims for axis in dimension if axis.kind == "size")
        time = next((axis for dimension in dims for axis in dimension if axis.kind == "time"), self.plan.step)
        return Edge(t, form, dims, inner, self.step.name, time, site)

    def features(self, size: int) -> Axis:
        """A new axis of features."""
        return Axis("size", (size,) * self.plan.runs)

    # --- parts and sites ---

    def part(self, path: str, make: Callable[[], M]) -> M:
        """The part of this path; a Planner makes it."""
        there = self.parts.there(path)
        if there is None:
            assert self.planning, path
            there = make()
            self.parts.place(path, there)
        if self._row is not None and not isinstance(there, QuantSite):
            self._row.weights += [part for part in there.modules() if isinstance(part, Weight)]
            self._row.sites += [part for part in there.modules() if isinstance(part, QuantSite)]
        return there  # type: ignore[return-value]

    def site(self, path: str, role: str, size: int) -> QuantSite:
        """The site of this path."""
        headroom = WIDE_HEADROOM if role == "preactivation" else 1.0
        site = self.part(path, lambda: QuantSite(role, size, headroom=headroom))
        if self._row is not None:
            self._row.sites.append(site)
        return site

    def module_name(self, path: str) -> str:
        """A name for the present use of a module: its path, with a number from the second use on."""
        uses = [k for k, step in self.plan.steps.items() if step.path == path and step.op == self.step.op]
        number = uses.index(self.index) + 1
        return path if number == 1 else f"{path}~{number}"

    # --- forms ---

    def narrow(self, x: Edge, what: str = "") -> Edge:
        """At up to 8 bits, as products read it."""
        return self.at(x, "int8", "activation")

    def wide(self, x: Edge) -> Edge:
        """At 16 bits, symmetric."""
        return self.at(x, "int16", "preactivation")

    def quantized(self, x: Edge) -> Edge:
        """At whichever site it has; accumulators at 8 bits."""
        return x if x.form in ("int8", "int16") and not x.apart else self.narrow(x)

    def at(self, x: Edge, form: str, role: str) -> Edge:
        """``x`` in this form, at a site of its producer's that all who want it share."""
        x = self.joined(x, form, role)
        if x.form == form:
            return x
        if not x.accumulated and x.form not in ("int8", "int16"):
            raise UnsupportedError(f"reads {x.producer}, which holds {said(x.form)}, not real numbers")
        if form not in x.late:
            site = self.site(f"{x.producer}.{form}", role, self.site_size(x))
            t = self.a.requantize(site, x.t) if x.accumulated else self.a.residual(site, x.t)
            x.late[form] = self.flat(x, t), site
        t, site = x.late[form]
        return replace(x, t=t, form=form, site=site, late={}, banded=False)

    def site_size(self, x: Edge) -> int:
        """What a site of the value is made for: of a convolution its filters."""
        return x.inner[-1].sizes[0] if x.banded else x.size

    def flat(self, x: Edge, t: Any) -> Any:
        """``t``, made of ``x``, with its features in one axis."""
        return self.a.flatten(t) if x.banded else t

    def repeated(self, x: Edge, time: Axis) -> Any:
        """A value without time at every step of a sequence that there is."""
        like = next(v for v in self.values.values() if isinstance(v, Edge) and v.time is time and v.t is not None)
        return self.a.repeat(x.t, like.t)

    def joined(self, x: Edge, form: str, role: str) -> Edge:
        """Values that are apart in one, at one site."""
        if not x.apart:
            return x
        if form not in x.late:
            site = self.site(f"{x.producer}.{form}", role, x.size)
            parts = [self.at(p, form, role) if p.accumulated else self.quantized(p) for p in (*x.pieces, *x.side)]
            x.late[form] = self.a.join(site, [p.t for p in parts]), site
        t, site = x.late[form]
        return replace(x, t=t, form=form, site=site, pieces=(), side=(), late={})

    def operands(self, x: Edge) -> list[Edge]:
        """What a product reads of ``x``: it, or each of the values that lie side by side, at up to 8 bits."""
        return [self.narrow(part) for part in x.side] if x.side else [self.narrow(x)]


def said(form: str) -> str:
    """A form in words."""
    return {
        "ids": "whole numbers", "sum": "int32 accumulators", "scores": "int32 of one scale", "zero": "zeros",
        "lengths": "lengths", "weights": "weights of steps, for a sum over time", "mask": "which steps are valid",
        "weighed": "weighed steps, for a sum over time", "total": "a sum over time, for a division by its length",
    }.get(form, form)  # fmt: skip


def nearest_operation(op: str) -> str:
    """What stands nearest to an operation that is not known, in words."""
    return NEAREST.get(op, "")


NEAREST = {
    "GroupNorm": "nn.LayerNorm", "InstanceNorm1d": "nn.LayerNorm", "RMSNorm": "nn.LayerNorm", "norm": "nn.LayerNorm",
    "MultiheadAttention": "attention pooling over time, or nn.LSTM or nn.GRU", "sin": "torch.tanh", "cos": "torch.tanh",
    "TransformerEncoder": "nn.LSTM or nn.GRU", "TransformerEncoderLayer": "nn.LSTM or nn.GRU",
    "scaled_dot_product_attention": "attention pooling over time, or nn.LSTM or nn.GRU", "cumsum": "nn.GRU",
    "ConvTranspose1d": "nn.Conv1d", "EmbeddingBag": "nn.Embedding and a mean", "argmax": "scores as outputs",
    "topk": "scores as outputs", "sort": "scores as outputs", "log": "F.logsigmoid or F.softplus",
    "std": "nn.LayerNorm", "var": "nn.LayerNorm", "erf": "torch.tanh", "RReLU": "nn.LeakyReLU",
    "where": "a product with a gate, or lengths",
}  # fmt: skip


def _form(value: Any) -> str:
    if isinstance(value, Edge):
        text = "" if value.pieces else said(value.form)
        return f"float, outside of the program ({value.tail[0]})" if value.tail else text
    return _form(value[0]) if isinstance(value, tuple) and value else ""


def _refuse_tail(value: Any) -> Any:
    if isinstance(value, Edge) and value.tail:
        raise UnsupportedError(
            f"reads {value.tail[0]}'s result; {value.tail[0]} stands in float behind the program, so only outputs may",
            "move it behind the network's end",
        )
    return value


def edges_of(structure: Any) -> Iterator[Edge]:
    """Every edge in a structure of outputs."""
    if isinstance(structure, Edge):
        yield structure
    elif isinstance(structure, (tuple, list)):
        for part in structure:
            yield from edges_of(part)
    elif isinstance(structure, (dict, Fields)):
        for part in structure.values() if isinstance(structure, dict) else structure.values.values():
            yield from edges_of(part)
