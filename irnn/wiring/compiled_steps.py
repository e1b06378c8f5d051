"""The time steps of a simulated layer, compiled by ``torch.compile``.

A step of quantization-aware training is a product and some forty small operations; compiled, these are a few loops.
What a step reads of outside (weights, scales, tables) is handed in, in the order of reading, so that what is compiled
is a function of tensors alone: one compilation serves all steps, and all epochs with their new tables.  Its products'
weight gradients are made once a sequence, as ``RecurrentProduct`` makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from irnn.quant.fake import FakeQuantize
from irnn.quant.site import QuantSite
from irnn.wiring.parts import ActivationPart, GatesPart, WeightPart
from irnn.wiring.simulate import Simulation

Lines = tuple[Any, ...]  # tensors, and None for a zero point that is 0

# Of a step: training or not, with and without gradients of the states before, shapes of batches.
_FORMS = 64


class CompiledSteps:
    """For ``Simulation.compiled``: the steps of layers, each compiled at its first use for each form of batch.

    A network has one for as long as it stays in a stage.  backend: of ``torch.compile``.
    """

    def __init__(self, backend: str = "inductor") -> None:
        self._backend = backend
        # Its default, 8 forms of a step, is meant for code whose author does not know that it is compiled.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _FORMS)
        self._steps: dict[nn.Module, Callable[..., Any]] = {}

    def bind(
        self, simulation: Simulation, step: Callable[..., Any], steps: Sequence[Tensor], values: Sequence[Tensor]
    ) -> Callable[..., tuple[Any, ...]] | None:
        """``step`` over ``steps``, compiled: a function of a step's index and of the states, ``values`` at first.

        None where that is no layer's own (``step`` is no method), or reads what changes beside the parameters.
        """
        layer = getattr(step, "__self__", None)
        listing = _Listing(simulation)
        if not isinstance(layer, nn.Module) or not listing.read_by(step, steps[0], values):
            return None
        if layer not in self._steps:
            # torch.compile counts how often the code of a function was compiled, whoever asked: each has its own code.
            own = FunctionType(_step.__code__.replace(), _step.__globals__, f"_step_of_{type(layer).__name__}")
            self._steps[layer] = torch.compile(own, backend=self._backend, fullgraph=True)
        compiled, constants = self._steps[layer], _Constants(simulation, listing.read, len(steps), len(values[0]))
        modes = simulation.training, simulation.observing

        def one(t: int, *states: Tensor) -> tuple[Any, ...]:
            output, after, multiplied, reached = compiled(step, modes, constants.of_step(t), steps[t], *states)
            constants.multiplied(multiplied)
            for site, x in zip(listing.recorded_at, reached, strict=True):
                simulation.record(site, x)
            return output, *after

        return one


class _Constants:
    """What the steps of a scan read, and what the products among them leave for their weights' gradients."""

    def __init__(self, simulation: Simulation, read: Sequence[WeightPart | QuantSite | Lines], steps: int, batch: int):
        self._read: list[Lines] = []
        self._results: dict[int, tuple[Tensor, ...]] = {}  # of products, step by step, by their place in what is read
        self._inputs: list[list[Tensor]] = []
        for place, of in enumerate(read):
            if isinstance(of, QuantSite):
                self._read.append(simulation.sites.grid(of)[:3])
            elif isinstance(of, tuple):
                self._read.append(of)
            else:
                weight = simulation.product_weight(of)
                self._read.append((weight.detach(),))
                self._inputs.append([])
                if torch.is_grad_enabled():
                    self._results[place] = _Results.apply(weight, (steps, batch, len(weight)), self._inputs[-1]).unbind(
                        0
                    )

    def of_step(self, t: int) -> list[Lines]:
        """In the order of reading."""
        return [
            (*fixed, self._results[place][t]) if place in self._results else fixed
            for place, fixed in enumerate(self._read)
        ]

    def multiplied(self, inputs: Sequence[Tensor]) -> None:
        """What a step's products were taken of."""
        for of_product, x in zip(self._inputs, inputs, strict=True):
            of_product.append(x.detach())


def _step(
    step: Callable[..., tuple[Any, ...]],
    modes: tuple[bool, bool],
    constants: list[Lines],
    x: Tensor,
    *values: Tensor,
) -> tuple[Any, list[Tensor], list[Tensor], list[Tensor]]:
    """Output and next states of ``step``, what its products multiply, what reaches its sites; modes: training and
    observing."""
    simulation = _Step(constants, training=modes[0], observing=modes[1])
    output, *after = step(simulation, x, *values)
    return output, list(after), simulation.multiplied, simulation.reached


class _Step(Simulation):
    """One step, with what it reads of outside in the order of reading."""

    def __init__(self, constants: list[Lines], *, training: bool, observing: bool) -> None:
        super().__init__({}, training=training, observing=observing)
        self._constants, self._place = constants, 0
        self.multiplied: list[Tensor] = []
        self.reached: list[Tensor] = []

    def _next(self) -> Lines:
        self._place += 1
        return self._constants[self._place - 1]

    def linear(self, module: WeightPart, x: Tensor) -> Tensor:
        weight, *results = self._next()
        x = self.operand(module, x).to(weight.dtype)
        self.multiplied.append(x)
        y = torch.nn.functional.linear(x, weight)
        for zeros in results:
            y = y + zeros
        return y if module.bias is None else y + module.bias.to(y.dtype)

    def activation(self, module: ActivationPart, x: Tensor) -> Tensor:
        if module.pieces is None:
            return module.exact(x)
        starts, slopes, intercepts = self._next()
        return module.piecewise(x, (starts, slopes, intercepts))

    def gates(self, gates: GatesPart, x: Tensor, parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return self._one_by_one(gates, parts)  # compiled, they are one loop

    def record(self, site: QuantSite, x: Tensor) -> None:
        self.reached.append(x.detach())

    def _fake_quantize(self, site: QuantSite, x: Tensor) -> Tensor:
        return FakeQuantize.apply(x.float(), *self._next(), *site.range(), None) if site.quantizing else x


class _Listing(Simulation):
    """Notes what a step reads: weights, sites, and the lines of tables; and the sites that it reaches."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__({}, training=simulation.training, observing=simulation.observing)
        self._of = simulation
        self._complete = True
        self.read: list[WeightPart | QuantSite | Lines] = []
        self.recorded_at: list[QuantSite] = []

    def read_by(self, step: Callable[..., Any], x: Tensor, values: Sequence[Tensor]) -> bool:
        """Note what ``step`` reads; whether that is all that changes."""
        step(self, x.detach(), *(value.detach() for value in values))
        return self._complete

    def linear(self, module: WeightPart, x: Tensor) -> Tensor:
        self.read.append(module)
        return x.new_zeros(*x.shape[:-1], len(self._of.weight(module)))

    def activation(self, module: ActivationPart, x: Tensor) -> Tensor:
        if module.output is not None:  # its ends are numbers that an epoch changes
            self._complete = False
        elif module.pieces is not None:
            self.read.append(module.lines(x.device))
        return x

    def gates(self, gates: GatesPart, x: Tensor, parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return self._one_by_one(gates, parts)

    def record(self, site: QuantSite, x: Tensor) -> None:
        self.recorded_at.append(site)

    def _fake_quantize(self, site: QuantSite, x: Tensor) -> Tensor:
        if site.quantizing:
            self.read.append(site)
        return x


class _Results(torch.autograd.Function):
    """Zeros ``[steps, batch, rows]`` that are added to a product's results: their gradient is the results' own, and
    with all inputs of the product the gradient of its weight ``[rows, columns]``."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, shape: tuple[int, ...], inputs: list[Tensor]) -> Tensor:
        ctx.inputs = inputs
        return weight.new_zeros(shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.flatten(0, 1).T @ torch.cat(ctx.inputs), None, None
