"""Executes a network's wiring in float: training, calibration and the evaluation of stages before the last.

Sites that are on fake-quantize; sites that observe see every tensor of a training forward.  Sequences are
``[time, batch, size]`` here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from irnn.layers import Activation, Embedding, Linear, Norm, Weight
from irnn.quantizers import FakeQuantize, FakeQuantizeWeight, QuantSite, weight_scale
from irnn.recurrent_product import RecurrentProduct


class Simulation:
    """One forward pass.  ``state`` maps names to ``[batch, size]`` tensors and is replaced as scans end."""

    def __init__(self, state: dict[str, Tensor], *, training: bool, observing: bool) -> None:
        self.state = dict(state)
        self.training = training
        self.observing = observing
        self._weights: dict[int, Tensor] = {}
        self._parameters: dict[QuantSite, tuple[Tensor, Tensor]] = {}
        self._products: dict[Linear, RecurrentProduct] = {}
        self._seen: dict[QuantSite, list[Tensor]] = {}

    def finish(self) -> None:
        """Let the observers that are on see what passed their sites."""
        for site, x in self.recorded():
            if site.observing:
                site.observe(x)

    def recorded(self) -> Iterator[tuple[QuantSite, Tensor]]:
        """(site, everything that reached it before quantization ``[rows, size]``) of an observing pass."""
        for site, tensors in self._seen.items():
            yield site, torch.cat([t.reshape(-1, site.size) for t in tensors])

    def weight(self, module: Weight) -> Tensor:
        """The module's weight, fake-quantized if it is on; once a forward."""
        key = id(module.weight)
        if key not in self._weights:
            weight = module.weight
            if module.quantizing:
                scale = weight_scale(weight, module.bits, module.per_row)
                weight = FakeQuantizeWeight.apply(weight, scale, 2 ** (module.bits - 1) - 1)
            self._weights[key] = weight
        return self._weights[key]

    def embedding(self, module: Embedding, ids: Tensor) -> Tensor:
        return torch.nn.functional.embedding(ids, self.weight(module))

    def input(self, site: QuantSite, x: Tensor) -> Tensor:
        """Features that enter the network."""
        return self.requantize(site, x)

    def linear(self, module: Linear, x: Tensor) -> Tensor:
        if module.recurrent and torch.is_grad_enabled():
            return self._recurrent_product(module)(x)
        return torch.nn.functional.linear(x, self.weight(module), module.bias)

    def _recurrent_product(self, module: Linear) -> RecurrentProduct:
        if module not in self._products:
            weight = self.weight(module)
            device = weight.device.type
            if torch.is_autocast_enabled(device):
                weight = weight.to(torch.get_autocast_dtype(device))
            self._products[module] = RecurrentProduct(weight)
        return self._products[module]

    def requantize(self, site: QuantSite, *terms: Tensor) -> Tensor:
        """Sum of the terms, quantized at ``site``."""
        x = terms[0]
        for term in terms[1:]:
            x = x + term
        return self._quantize(site, x)

    def add(self, site: QuantSite, a: Tensor, b: Tensor) -> Tensor:
        """Saturating sum of two tensors that both live at ``site``: the range has to hold the sum as well."""
        return self._quantize(site, a + b)

    def multiply(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b

    def norm(self, module: Norm, site: QuantSite, x: Tensor) -> Tensor:
        return self._quantize(site, module(x))

    def activation(self, module: Activation, x: Tensor) -> Tensor:
        return module(x)

    def split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        return x.chunk(parts, dim=-1)

    def concat(self, parts: list[Tensor]) -> Tensor:
        return torch.cat(parts, dim=-1)

    def dropout(self, x: Tensor, p: float) -> Tensor:
        return torch.nn.functional.dropout(x, p, self.training)

    def scan(
        self,
        step: Callable[..., tuple[Any, ...]],
        sequence: Tensor,
        states: list[tuple[str, int, QuantSite]],
        *,
        reverse: bool = False,
    ) -> Tensor:
        """Run ``step(executor, x_t, *states) -> (output, *states)`` along time; the outputs as a sequence."""
        values = [self.state[name] for name, _, _ in states]
        outputs = []
        steps = sequence.unbind(0)
        for x in reversed(steps) if reverse else steps:
            output, *values = step(self, x, *values)
            outputs.append(output)
        self.state.update({name: value for (name, _, _), value in zip(states, values, strict=True)})
        return torch.stack(outputs[::-1] if reverse else outputs)

    def _quantize(self, site: QuantSite, x: Tensor) -> Tensor:
        if self.observing:
            self._seen.setdefault(site, []).append(x.detach())
        if not site.quantizing:
            return x
        if site not in self._parameters:
            self._parameters[site] = site.simulation_parameters(torch.empty(0, device=x.device))
        return FakeQuantize.apply(x.float(), *self._parameters[site], *site.range())
