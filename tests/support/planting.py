"""Bugs on purpose: one string of a module's source is replaced in a copy of the arithmetic and of the interpreter.

The string occurs exactly once, so a change of the source that moves it fails here and the list is mended with it.
"""

from __future__ import annotations

import inspect
import pkgutil
import types
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from irnn.program import Program, ops
from irnn.program.ops import Operation

OPERATIONS = {
    f"ops.{file.name}": f"{ops.__name__}.{file.name}"
    for file in pkgutil.iter_modules(ops.__path__)
    if file.name not in ("base", "constants")
}
MODULES = {
    "fixed_point": "irnn.arithmetic.fixed_point",
    "run_time_codes": "irnn.arithmetic.run_time_codes",
    "numpy_ops": "irnn.arithmetic.numpy_ops",
    "interpreter": "irnn.program.interpreter",
    **OPERATIONS,
}


@dataclass(frozen=True)
class Mutation:
    """``old`` becomes ``new`` in the source of one of ``MODULES``."""

    module: str
    what: str
    old: str
    new: str


def arithmetic(what: str, old: str, new: str) -> Mutation:
    return Mutation("fixed_point", what, old, new)


def namespace(what: str, old: str, new: str) -> Mutation:
    return Mutation("numpy_ops", what, old, new)


def walk(what: str, old: str, new: str) -> Mutation:
    return Mutation("interpreter", what, old, new)


def operation(file: str, what: str, old: str, new: str) -> Mutation:
    """In the evaluation of an operation of a program."""
    return Mutation(f"ops.{file}", what, old, new)


def source(module: str) -> str:
    return Path(find_spec(MODULES[module]).origin).read_text(encoding="utf-8")


def load(module: str, text: str) -> types.ModuleType:
    copy = types.ModuleType(f"irnn.{module}_copy")
    copy.np = np
    exec(compile(text, f"irnn/{module}.py (mutated)", "exec"), copy.__dict__)
    return copy


def planted(mutation: Mutation | None) -> Callable[[Program], Any]:
    """A maker of interpreters in which everything is a fresh copy and the mutation is in its place."""
    texts = {module: source(module) for module in MODULES}
    if mutation is not None:
        count = texts[mutation.module].count(mutation.old)
        assert count == 1, f"{mutation.what}: {mutation.old!r} occurs {count} times in {MODULES[mutation.module]}"
        texts[mutation.module] = texts[mutation.module].replace(mutation.old, mutation.new)
    copies = {module: load(module, text) for module, text in texts.items()}
    for copy in copies.values():
        if hasattr(copy, "fixed_point"):
            copy.fixed_point = copies["fixed_point"]
    copied = [operation for module in OPERATIONS for operation in operations_in(copies[module])]
    copies["interpreter"].OPS = ops.Registry(copied)
    return lambda program: copies["interpreter"].Interpreter(program, copies["numpy_ops"].NUMPY)


def operations_in(module: types.ModuleType) -> list[Operation]:
    """The operations that the module defines itself."""
    classes = [value for value in vars(module).values() if inspect.isclass(value)]
    return [cls() for cls in classes if cls.__module__ == module.__name__ and hasattr(cls, "name")]
