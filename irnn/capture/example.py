"""Arguments of ``forward``: how the example had them, and the tensors of a call that has them so too."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from irnn.capture.trace import Example
from irnn.errors import IrnnError


@dataclass
class Signature:
    """The parameters of ``forward`` and the structure of the example's arguments."""

    parameters: inspect.Signature
    structure: Any  # of (args, kwargs), with ... for each leaf
    fixed: list[Any]  # leaves that are no tensors; None for those that are
    names: list[str]

    def arguments(self, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """(args, kwargs) of a batch: a tuple of arguments, a mapping by their names, or the only one."""
        return split_arguments(batch)

    def leaves(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """The tensors of a call; one of another structure than the example's is an :class:`IrnnError`."""
        bound = _bound(self.parameters, args, kwargs)
        leaves = pytree.tree_leaves((bound.args, bound.kwargs))
        if _structure(bound) != self.structure:
            raise IrnnError(
                f"called with {_described(bound)}, captured with {', '.join(self.names)}: give the same arguments, or "
                "prepare the network with an example of these"
            )
        for name, leaf, fixed in zip(self.names, leaves, self.fixed, strict=True):
            if isinstance(leaf, Tensor) == (fixed is not None) or (fixed is not None and leaf != fixed):
                raise IrnnError(f"{name}={leaf!r}: captured with {'a tensor' if fixed is None else repr(fixed)}")
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def read_example(network: nn.Module, example_inputs: Any) -> tuple[Example, Signature]:
    """The example's leaves with names, and what a call must have."""
    parameters = inspect.signature(network.forward)
    args, kwargs = split_arguments(example_inputs)
    bound = _bound(parameters, args, kwargs)
    found, structure = pytree.tree_flatten_with_path((bound.args, bound.kwargs))
    positional = list(bound.arguments)
    names = [_name(path, positional) for path, _ in found]
    leaves = [leaf for _, leaf in found]
    fixed = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    if not any(isinstance(leaf, Tensor) for leaf in leaves):
        raise IrnnError("example_inputs holds no tensor; give forward's arguments, as (x,) or (x, lengths)")
    return Example(leaves, structure, names), Signature(parameters, _structure(bound), fixed, names)


def split_arguments(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A batch as (args, kwargs)."""
    if isinstance(batch, Mapping):
        return (), dict(batch)
    return (tuple(batch), {}) if isinstance(batch, (tuple, list)) else ((batch,), {})


def _bound(parameters: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
    try:
        return parameters.bind(*args, **kwargs)
    except TypeError as error:
        raise IrnnError(
            f"forward{parameters} cannot be called with {len(args)} arguments{''.join(f' and {k}=' for k in kwargs)}: "
            f"{error}; give a tuple of forward's arguments"
        ) from None


def _structure(bound: inspect.BoundArguments) -> Any:
    return pytree.tree_map(lambda leaf: ..., (bound.args, bound.kwargs))


def _described(bound: inspect.BoundArguments) -> str:
    return ", ".join(f"{name}: {type(value).__name__}" for name, value in bound.arguments.items())


def _name(path: tuple[Any, ...], positional: list[str]) -> str:
    """``state_0`` for the first of the tensors in the argument ``state``."""
    kind, place, *inside = [str(getattr(key, "idx", getattr(key, "key", None))) for key in path]
    first = positional[min(int(place), len(positional) - 1)] if kind == "0" else place
    return "_".join([first, *inside])
