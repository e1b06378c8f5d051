"""What a recurrent cell is to layers, stacks, recorders and training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self, TypeVar

from torch import nn

from irnn.quant.site import QuantSite
from irnn.wiring.executor import Executor, StateSpec

T = TypeVar("T")


class Cell(nn.Module, ABC):
    """One direction of one layer: its weights, norms, activations and sites, and how one step is wired.

    The constructor takes ``(input_size, hidden_size, *, bias, norm, hidden, **options)``; ``hidden`` is the site of the
    output, which both directions of a layer share, so that they concatenate (iRNN).
    """

    TITLE: ClassVar[str]  # as in torch's `mode`, for messages
    # torch's names of a layer's parameters -> this cell's; {} where torch has no such cell.
    TORCH_PARAMETERS: ClassVar[dict[str, str]] = {}
    STATES: ClassVar[tuple[str, ...]] = ("h",)
    OPTIONS: ClassVar[tuple[str, ...]] = ()  # arguments beyond those that every cell has
    QUANT: ClassVar[dict[str, Any]] = {}  # bits of roles that are not the default, in benchmarks

    @abstractmethod
    def hoist(self, a: Executor[T], x: T) -> Any:
        """What needs no state, for all steps of the sequence at once."""

    @abstractmethod
    def step(self, a: Executor[T], pre: Any, *states: Any, **context: Any) -> tuple[T, ...]:
        """One time step of what ``hoist`` gave: (output, *states)."""

    def finish(self, a: Executor[T], y: T) -> T:
        """What of the output needs no state, for all steps of the sequence at once."""
        return y

    @abstractmethod
    def states(self, name: str) -> list[StateSpec]:
        """The states, under ``name`` of this layer and direction, in the order in which ``step`` takes them."""

    @classmethod
    @abstractmethod
    def from_torch(cls, module: nn.RNNBase, layer: int, direction: int, *, hidden: QuantSite) -> Cell:
        """The cell with copies of the parameters of one layer and direction (1: reverse) of torch's module."""

    @staticmethod
    def output_size(hidden_size: int, **options: Any) -> int:
        """Size of the output."""
        return hidden_size

    @classmethod
    def output_site(cls, hidden_size: int, **options: Any) -> QuantSite:
        """Where the output is quantized, the constructor's ``hidden``."""
        return QuantSite("hidden", cls.output_size(hidden_size, **options))

    def whole(self) -> Callable[..., Any] | None:
        """All steps of one direction at once in real numbers, see ``Executor.scan``; None where there is no such way
        or something within a step is quantized."""
        return None

    @classmethod
    def fused(cls, cells: Sequence[Self]) -> Callable[..., Any] | None:
        """A faster way through a layer of real numbers, see ``Executor.fused``; None where there is none."""
        return None

    def _load_torch(self, module: nn.RNNBase, layer: int, direction: int) -> None:
        """Copy the parameters of torch's module over those of this cell."""
        suffix = f"_l{layer}" + ("_reverse" if direction else "")
        values = dict(module.named_parameters())
        for theirs, own in self.TORCH_PARAMETERS.items():
            if theirs + suffix in values:
                self.get_parameter(own).data.copy_(values[theirs + suffix].data)
