"""A recurrent stack alone: features in, hidden states out.  For benchmarks, sensors, and as the smallest example."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor

from irnn.errors import IrnnError
from irnn.models.base import StreamModel, stack_of
from irnn.nn.recurrent import Recurrent
from irnn.quant.finite import not_finite
from irnn.quant.site import QuantSite
from irnn.wiring.executor import Executor, ProgramExecutor, StateSpec
from irnn.wiring.simulate import Simulation

T = TypeVar("T")


class SequenceModel(StreamModel):
    """``features [batch, time, input_size] -> h [batch, time, size (x 2)]``; int8 features in the program.

    The size of h is that of the cell's output: hidden_size, or a projection's.  The stack is registered under its
    cell's name, so that programs and state_dicts say ``lstm.0.w_x``.
    """

    def __init__(self, stack: Recurrent, input_size: int) -> None:
        super().__init__()
        self.input_site = QuantSite("activation", input_size)
        self.stack_name = stack.mode.lower()
        self.add_module(self.stack_name, stack)

    @property
    def recurrent(self) -> Recurrent:
        """The stack."""
        return stack_of(self, self.stack_name)

    def wire(self, a: Executor[T], x: T) -> T:
        """Features -> hidden states, for any executor."""
        return self.recurrent.wire(a, x, self.stack_name)

    def state_specs(self) -> list[StateSpec]:
        """Every state."""
        return self.recurrent.state_specs(self.stack_name)

    def program_wire(self, a: ProgramExecutor[T]) -> None:
        """The whole network for an executor that records a program."""
        a.output("h", self.wire(a, a.features("x", self.input_site)))

    def simulate(self, x: Tensor, state: dict[str, Tensor] | None, *, observing: bool) -> tuple[Tensor, Simulation]:
        """Float hidden states ``[time, batch, ...]``, and the executor with the new state."""
        if state is None:
            state = {name: x.new_zeros(len(x), size) for name, size, _ in self.state_specs()}
        simulation = self._simulation(state, observing)
        h = self.wire(simulation, simulation.requantize(self.input_site, x.transpose(0, 1)))
        simulation.finish()
        return h, simulation

    def integer_input(self, x: Tensor) -> Tensor:
        """What the program reads for features ``x``: their integers."""
        if problem := not_finite("the features", x):
            raise IrnnError(f"{problem}; mend the data")
        scale, zero_point = self.input_site.simulation_parameters(x)
        return torch.floor(x / scale + zero_point + 0.5).clamp(*self.input_site.range()).to(torch.int8)

    def forward(self, x: Tensor, state: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Features ``[batch, time, input]`` -> (h, state); in stage "all" ``eval()`` takes and gives integers."""
        if self.integer:
            return self.frozen().run(x, state)
        h, simulation = self.simulate(x, state, observing=self._observing)
        return h.transpose(0, 1), simulation.state


def random_layer(
    input_size: int, hidden_size: int, *, cell: str = "lstm", num_layers: int = 1, bidirectional: bool = False,
    norm: str | None = None, seed: int = 0, **options: Any,
) -> SequenceModel:  # fmt: skip
    """A stack with random weights of a trained network's size, for benchmarks; options are those of the cell."""
    generator_state = torch.get_rng_state()
    torch.manual_seed(seed)
    stack = Recurrent(cell, input_size, hidden_size, num_layers, bidirectional=bidirectional, norm=norm, **options)
    model = SequenceModel(stack, input_size)
    torch.set_rng_state(generator_state)
    return model
