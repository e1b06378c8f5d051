"""What becomes of a network: every operation's integer form, or all that stands in the way, at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn

from irnn.capture.example import read_example
from irnn.capture.network import CapturedNetwork, prepared_class
from irnn.capture.plan import make_plan
from irnn.capture.trace import Example, NumbersAskedError
from irnn.capture.wiring import Row
from irnn.errors import IrnnError
from irnn.models.base import RecurrentModel
from irnn.nn.norm import NORMS
from irnn.wiring.network import ENGINE


@dataclass(frozen=True)
class Explanation:
    """A row for each operation; prints as a table.  ``problems`` are the rows that have no integer form."""

    network: str
    rows: tuple[Row, ...]

    @property
    def problems(self) -> list[Row]:
        """What stands in the way."""
        return [row for row in self.rows if row.problem]

    def to_dict(self) -> dict[str, Any]:
        """Plain data: ``network``, ``supported``, ``operations`` (a dict each)."""
        return {
            "network": self.network,
            "supported": not self.problems,
            "operations": [
                {
                    "name": row.name, "operation": row.op, "module": row.path, "where": row.where, "shape": row.shape,
                    "form": row.form, "bits": _bits(row), "problem": row.problem or None,
                    "nearest": row.nearest or None,
                }
                for row in self.rows
            ],
        }  # fmt: skip

    def __rich__(self) -> Table:
        title = f"{self.network}: " + (
            f"{len(self.problems)} problems" if self.problems else "every operation has integers"
        )
        table = Table("operation", "of", "shape", "integer form, or why not", "bits", "where", title=title)
        for row in self.rows:
            form = row.form if not row.problem else f"NO: {row.problem}"
            if row.nearest:
                form += f" (nearest: {row.nearest})"
            cells = (row.name, row.op, row.shape, form, _bits(row), _short(row.where))
            table.add_row(*map(escape, cells))
        return table

    def __str__(self) -> str:
        console = Console(width=150)
        with console.capture() as captured:
            console.print(self)
        return captured.get()


def _bits(row: Row) -> str:
    """Of weights by role, then of sites."""
    weights = [f"{part.role} {part.bits}" for part in row.weights]
    sites = [f"{site.role} {site.bits}" for site in row.sites]
    return ", ".join(dict.fromkeys([*weights, *sites]))


def _short(where: str) -> str:
    return where.rpartition("/")[2]


def explain(network: nn.Module, example_inputs: Any) -> Explanation:
    """Every operation of ``network`` with its integer form and bits, or why it has none; nothing is changed.

    example_inputs: ``forward``'s arguments: a tuple of them, a mapping by their names, or the only one.
    """
    engine = network._modules.get(ENGINE)
    if engine is not None:
        raise IrnnError(f"{type(network).__name__} has been prepared already; explain a network that has not")
    return _judge(network, example_inputs, NORMS[-1])[1]


def capture(network: nn.Module, example_inputs: Any, norm: str) -> None:
    """Give ``network`` what it needs to compute with integers, in place; or an :class:`IrnnError` of all problems."""
    engine, explanation = _judge(network, example_inputs, norm)
    if explanation.problems or engine is None:
        lines = [
            f"{row.name} ({', '.join(filter(None, (row.op, row.where)))}) {row.problem}"
            + (f"; nearest: {row.nearest}" if row.nearest else "")
            for row in explanation.problems
        ]
        raise IrnnError(
            f"{explanation.network} has no integer form: " + "; ".join(f"{k}. {t}" for k, t in enumerate(lines, 1))
        )
    kind = type(network)
    network.add_module(ENGINE, engine)
    network.__class__ = prepared_class(kind)
    engine.train(network.training)


def _judge(network: Any, example_inputs: Any, norm: str) -> tuple[CapturedNetwork | None, Explanation]:
    if isinstance(network, RecurrentModel):
        raise IrnnError(f"{type(network).__name__} is a model of irnn's: it needs no example_inputs")
    if not isinstance(network, nn.Module):
        raise IrnnError(f"the network is a {type(network).__name__}; give a torch.nn.Module")
    if norm not in NORMS:
        raise IrnnError(f"norm={norm!r}: allowed are {', '.join(NORMS)}")
    name = type(network).__name__
    example, signature = read_example(network, example_inputs)
    rows = _foreign_formats(network, example)
    try:
        plan = make_plan(network, example)
    except NumbersAskedError as stop:
        where, _, reason = str(stop).partition(": ")
        return None, Explanation(name, (*rows, _problem("forward", reason, where)))
    except IrnnError:
        raise
    except Exception as error:
        reason = f"cannot be run on example_inputs ({type(error).__name__}: {str(error).splitlines()[0]})"
        return None, Explanation(name, (*rows, _problem("forward", reason)))
    rows += [Row(path or "forward", "", path, where, "", "", reason) for path, where, reason in plan.problems]
    engine = CapturedNetwork(network, plan, signature)
    rows += engine.plan_parts(norm)
    return engine, Explanation(name, tuple(rows))


def _problem(name: str, reason: str, where: str = "") -> Row:
    return Row(name, "", "", where, "", "", reason)


def _foreign_formats(network: nn.Module, example: Example) -> list[Row]:
    """Parameters and inputs that are no float32 tensors on one device."""
    tensors = [*network.named_parameters(), *network.named_buffers()]
    devices = {str(t.device) for _, t in tensors}
    rows = []
    wrong = [f"{name} is {t.dtype}" for name, t in tensors if t.is_floating_point() and t.dtype != torch.float32]
    if wrong:
        rows.append(_problem("parameters", f"{wrong[0]} and {len(wrong) - 1} more like it", "network.float()"))
    if len(devices) > 1:
        rows.append(_problem("parameters", f"lie on several devices: {', '.join(sorted(devices))}"))
    if not any(True for _ in network.parameters()):
        rows.append(_problem("parameters", "there are none: a network without weights has nothing to quantize"))
    for name, leaf in zip(example.names, example.leaves, strict=True):
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.dtype != torch.float32:
            rows.append(_problem(name, f"is {leaf.dtype}, not torch.float32"))
        if isinstance(leaf, Tensor) and len(devices) == 1 and leaf.dim() and str(leaf.device) not in devices:
            rows.append(_problem(name, f"is on {leaf.device}, the network on {next(iter(devices))}"))
    return rows
