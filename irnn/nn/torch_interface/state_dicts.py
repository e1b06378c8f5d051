"""State dicts from elsewhere: names without what wrappers put in front, and one line for what does not fit."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from irnn.errors import IrnnError

# DataParallel and DistributedDataParallel hold the network as ``module``, torch.compile as ``_orig_mod``.  The latter
# wraps single layers as well; ``module`` further inside may be a network's own name.
WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod)\.)+|(?<=\.)_orig_mod\.")
SHOWN = 3


def unwrapped(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The entries under their names without wrappers: ``module.`` and ``_orig_mod.`` in front, in any order.

    Raises :class:`IrnnError` for what is no mapping, and where two entries would have one name.
    """
    if not isinstance(state_dict, Mapping):
        raise IrnnError(f"the state_dict is a {type(state_dict).__name__}; give a mapping of names to tensors")
    names = {key: WRAPPERS.sub("", str(key)) for key in state_dict}
    if len(set(names.values())) < len(names):
        double = next(name for name in names.values() if list(names.values()).count(name) > 1)
        raise IrnnError(
            f"the state_dict holds {double!r} twice, with and without 'module.' or '_orig_mod.'; keep one of the two"
        )
    return {names[key]: value for key, value in state_dict.items()}


def saved_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The buffers that a state_dict holds: those that were registered as persistent."""
    for path, module in model.named_modules():
        for name, buffer in module.named_buffers(path, recurse=False):
            if name.rpartition(".")[2] not in module._non_persistent_buffers_set:
                yield name, buffer


def check_fit(
    owner: str,
    expected: Mapping[str, torch.Size],
    found: Mapping[str, Any],
    *,
    strict: bool,
    mend: str,
) -> None:
    """Raise one line that names the first few entries that do not fit ``expected`` (name -> shape), and ``mend``.

    owner: what is loaded into.  Without ``strict`` entries may be missing or unknown, as with ``load_state_dict``.
    """
    faults = []
    if strict:
        faults += _named("missing", [name for name in expected if name not in found])
        faults += _named("unexpected", [name for name in found if name not in expected])
    shapes = {name: getattr(value, "shape", None) for name, value in found.items() if name in expected}
    wrong = [
        f"{name} is {type(found[name]).__name__ if shape is None else list(shape)}, not {list(expected[name])}"
        for name, shape in shapes.items()
        if shape != expected[name]
    ]
    faults += _named("of another shape", wrong)
    if faults:
        raise IrnnError(f"the state_dict does not fit {owner}: {'; '.join(faults)}; {mend}")


def _named(fault: str, names: Collection[str]) -> list[str]:
    """``["missing: a, b, c and 4 more"]``, or nothing."""
    if not names:
        return []
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"{fault}: {', '.join(list(names)[:SHOWN])}{more}"]
