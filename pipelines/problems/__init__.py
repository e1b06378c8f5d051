"""What a run can be about. Every folder here is a problem; its name is the folder's, and its `KIND` says what it is.

A problem brings its configuration, data, network, training task and figures of merit; stages, cache, report and
benchmark know nothing of it. A new one is a folder with a `KIND`, and `conf/problem/NAME.yaml` with its defaults.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from irnn.errors import IrnnError

if TYPE_CHECKING:
    from pipelines.config import RunConfig
    from pipelines.core.problem import Problem


@dataclass(frozen=True)
class Figure:
    """How a figure is shown in the table: the column's heading, and the number's format; higher: more is better."""

    heading: str
    form: str
    higher: bool = False


@dataclass(frozen=True)
class Kind:
    """A problem before its data are read.

    options, evaluation: classes of the sections `problem` (with the field `name`) and `evaluation`.
    data: reads the section `data`; what is wrong with it is an `IrnnError`.
    open: reads the data and gives the problem that the stages work on.
    figures: columns of the table by their key in a stage's metrics, in this order.
    timing, time: key of the benchmark's figures in the results (by back end: `tvm_float`, `tvm_integer`), their column.
    task: keys of the section `data` whose values make other tasks of it, with how each is called beside its value:
        runs side by side are told apart by them.
    further: keys of the evaluation, the benchmark or the float stage's inputs that the results show besides, where
        they are there.
    """

    options: type
    evaluation: type
    data: Callable[[Mapping[str, Any]], Any]
    open: Callable[[RunConfig], Problem[Any, Any]]
    figures: Mapping[str, Figure]
    timing: str
    time: Figure
    further: tuple[str, ...] = field(default=())
    task: Mapping[str, str] = field(default_factory=dict)


def names() -> list[str]:
    """The names of all problems."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)


def find(name: object) -> Kind:
    """The problem of that name; an unknown one is an `IrnnError` with the list."""
    if name not in names():
        raise IrnnError(f"problem.name={name!r} is unknown; allowed: {', '.join(names())}")
    return import_module(f"{__name__}.{name}").KIND
