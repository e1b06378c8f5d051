"""Mogrifier LSTM (Melis, Kocisky and Blunsom, ICLR 2020) with low-rank gates and a capped input gate, as lamb has it.

Before each step x and the former h gate each other in turns, ``rounds`` times:

    x = 2 sigmoid(B_k A_k h + b_k) x     k = 0, 2, 4 ...
    h = 2 sigmoid(B_k A_k x + b_k) h     k = 1, 3, 5 ...

and then i, f, g, o = W_x x + b + W_h h as in an LSTM, with

    c = f c + min(1 - f, i) g            (the capped input gate: c stays within [-1, 1])
    h = o tanh(c)

W_x x cannot be computed for all steps at once: its x depends on h.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn

from irnn.errors import IrnnError
from irnn.nn.activation import Activation
from irnn.nn.cells.lstm import FUNCTIONS, GATES, MemoryCell
from irnn.nn.containers import ModuleDict, ModuleList
from irnn.nn.fast.exact_mogrifier import exact_mogrifier
from irnn.nn.gates import Gates
from irnn.nn.linear import Linear, uniform
from irnn.quant.site import QuantSite
from irnn.wiring.executor import Executor

T = TypeVar("T")


class Round(nn.Module):
    """One round: ``y = 2 sigmoid(B (A x) + b) y``, A ``[rank, size of x]``, B ``[size of y, rank]``.

    Both products are those of the state, or of what it has gated.
    """

    def __init__(self, read: int, gated: int, rank: int) -> None:
        super().__init__()
        self.left = Linear(uniform(read, rank, read), recurrent=True, reads_hidden=True)
        self.right = Linear(uniform(rank, gated, rank), (nn.Parameter(torch.zeros(gated)),), recurrent=True)
        self.factor = QuantSite("activation", rank)
        self.preactivation = QuantSite("preactivation", gated)
        self.gate = Activation("sigmoid", self.preactivation)
        self.gated = QuantSite("activation", gated)

    def wire(self, a: Executor[T], x: T, y: T) -> T:
        """The gated y; the gate's factor 2 is that of its scale."""
        factor = a.requantize(self.factor, a.linear(self.left, x))
        gate = a.activation(self.gate, a.requantize(self.preactivation, a.linear(self.right, factor)))
        return a.requantize(self.gated, a.multiply(a.scale(gate, 2.0), y))


class MogrifierCell(MemoryCell):
    """One direction of one layer: W_x ``[4 hidden, input]``, W_h ``[4 hidden, hidden]``, in the gate order i, f, g, o.

    rounds: how often x and h gate each other, 0 or more.  rank: that of the matrices of a round.
    """

    TITLE = "MOGRIFIER"
    OPTIONS: ClassVar = ("rounds", "rank")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool,
        norm: str | None,
        hidden: QuantSite,
        rounds: int = 6,
        rank: int = 48,
    ) -> None:
        super().__init__()
        if norm is not None:
            raise IrnnError(f"norm={norm!r}: a Mogrifier cell has none; leave it out")
        for name, value, least in (("rounds", rounds, 0), ("rank", rank, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise IrnnError(f"{name}={value!r} must be a whole number, at least {least}")
        rows = 4 * hidden_size
        parameter = partial(uniform, hidden_size)
        self.hidden_size = hidden_size
        sizes = (hidden_size, input_size)
        self.rounds = ModuleList(Round(sizes[k % 2], sizes[1 - k % 2], rank) for k in range(rounds))
        self.w_x = Linear(
            parameter(rows, input_size), (parameter(rows),) if bias else (), recurrent=rounds > 0, reads_hidden=True
        )
        self.w_h = Linear(parameter(rows, hidden_size), recurrent=True, reads_hidden=True)
        self._hidden = (hidden,)  # registered by the layer: both directions share it
        self.preactivation = QuantSite("preactivation", rows, groups=4)
        self.cell = QuantSite("cell", hidden_size)
        self.gates = ModuleDict(
            {n: Activation(f, self.preactivation, k) for k, (n, f) in enumerate(zip(GATES, FUNCTIONS, strict=True))}
        )
        self._gates = Gates([*self.gates.values()])
        self.tanh_c = Activation("tanh", self.cell)

    @classmethod
    def from_torch(cls, module: nn.RNNBase, layer: int, direction: int, *, hidden: QuantSite) -> MogrifierCell:
        """There is none in torch, nor is its LSTM one with 0 rounds: that one's input gate has no cap."""
        raise IrnnError(f"torch has no Mogrifier LSTM, and {module.mode} is none: its input gate has no cap")

    @classmethod
    def fused(cls, cells: Sequence[Self]) -> Callable[..., Any] | None:
        """One direction by ``irnn.nn.fast.exact_mogrifier``."""
        return partial(_one_direction, cells[0]) if len(cells) == 1 else None

    def hoist(self, a: Executor[T], x: T) -> T:
        """x as it is: h gates it first."""
        return x

    def step(self, a: Executor[T], x: T, h: T, c: T) -> tuple[T, T, T]:
        """One time step -> (h, h, c): the output and the next states."""
        for k, gating in enumerate(self.rounds):
            if k % 2:
                h = gating.wire(a, x, h)
            else:
                x = gating.wire(a, h, x)
        summed = a.requantize(self.preactivation, a.linear(self.w_x, x), a.linear(self.w_h, h))
        i, f, g, o = a.gates(self._gates, summed, a.split(summed, 4))
        i = a.minimum(a.complement(f), i)
        c = a.requantize(self.cell, a.multiply(f, c), a.multiply(i, g))
        h = a.requantize(self._hidden[0], a.multiply(o, a.activation(self.tanh_c, c)))
        return h, h, c


def _one_direction(
    cell: MogrifierCell, x: Tensor, lengths: Tensor | None, states: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """``Executor.fused``'s layer: states are h, c."""
    rounds = [(r.left.weight, r.right.weight, r.right.bias_0) for r in cell.rounds]
    return exact_mogrifier(x, lengths, cell.w_x.weight, cell.w_x.bias, cell.w_h.weight, rounds, states)
