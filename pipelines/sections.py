"""Sections of the configuration as dataclasses: keys and plain types are checked, whatever is wrong is one line."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from irnn.errors import IrnnError, arguments_of


def read_section(cls: type, section: Mapping[str, Any], where: str) -> Any:
    """Build the dataclass `cls` from a mapping: keys and plain types are checked, nested dataclasses followed.

    where: what stands before the keys in messages, for example "data.".
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(section) - set(fields))
    if unknown:
        raise IrnnError(f"{where}{unknown[0]} is no key of the configuration; allowed: {', '.join(fields)}")
    values = {}
    for name, field in fields.items():
        if name in section:
            values[name] = _value(hints[name], section[name], f"{where}{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise IrnnError(f"{where}{name} is missing from the configuration")
    with arguments_of(cls, where):
        return cls(**values)


def need_section(section: object, where: str) -> Mapping[str, Any]:
    """`section`, if it has keys; anything else is an `IrnnError`."""
    if not isinstance(section, Mapping):
        raise IrnnError(f"{where}={section!r} must be a section with keys")
    return section


def need_one_of(key: str, value: object, allowed: tuple[object, ...]) -> None:
    """An `IrnnError` unless `value` is one of `allowed`."""
    if value not in allowed:
        names = ", ".join("null" if option is None else str(option) for option in allowed)
        raise IrnnError(f"{key}={value} is unknown; allowed: {names}")


def need_source(section: Mapping[str, Any], problem: str, allowed: Iterable[str]) -> str:
    """`data.source` of the section `data`; one that is not the problem's is an `IrnnError`."""
    source = section.get("source")
    if source not in (known := tuple(allowed)):
        raise IrnnError(
            f"data.source={source!r} is unknown; allowed: {', '.join(known)} (of problem={problem}; data of another "
            "problem need problem=NAME)"
        )
    return str(source)


def need_positive(key: str, value: float) -> None:
    """An `IrnnError` unless `value` is greater than 0."""
    if not value > 0:
        raise IrnnError(f"{key}={value} must be greater than 0")


def architecture_inputs(architecture: Any) -> dict[str, Any]:
    """Fields that differ from their defaults: a new option of the network keeps the float models trained before it."""
    inputs = {}
    for field in dataclasses.fields(architecture):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if (value := getattr(architecture, field.name)) != default:
            inputs[field.name] = value
    return inputs


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(value):  # read before, with a class that depends on the content
        return value
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return read_section(hint, need_section(value, where), f"{where}.")
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and types.NoneType in options:
        return None
    if Path in options:
        if not isinstance(value, str):
            raise IrnnError(f"{where}={value!r} has the wrong type; wanted: the name of a folder")
        return Path(value)
    if float in options and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = tuple(option for option in options if option in (bool, int, float, str))
    if plain and (not isinstance(value, plain) or (isinstance(value, bool) and bool not in plain)):
        wanted = " or ".join("null" if option is types.NoneType else option.__name__ for option in options)
        raise IrnnError(f"{where}={value!r} has the wrong type; wanted: {wanted}")
    return value
