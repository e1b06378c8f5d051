"""Executes a network's wiring in float: training, calibration and the evaluation of stages before the last.

Sites that are on fake-quantize; sites that observe see every tensor of a training forward.  Sequences are
``[time, batch, size]`` here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from irnn.nn.activation import Activation
from irnn.nn.attention import Exponential
from irnn.nn.convolution import Convolution
from irnn.nn.embedding import Embedding
from irnn.nn.fast.recurrent_product import RecurrentProduct
from irnn.nn.linear import Linear, Weight
from irnn.nn.norm import Norm
from irnn.quant.codes.uniform import FakeQuantizeWeight, weight_scale
from irnn.quant.fake import FakeQuantize
from irnn.quant.site import QuantSite


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
        self.lengths: Tensor | None = None  # where the sequences of the batch end, see `ragged`
        self._valid: Tensor | None = None  # rows of the batch that have not ended, within a scan

    def ragged(self, lengths: Tensor | None) -> None:
        """From here on sequences end at ``lengths [batch]``; None: they are all as long as the longest."""
        self.lengths = lengths

    def finish(self) -> None:
        """Let the observers that are on see what passed their sites."""
        for site, x in self.recorded():
            if site.observing:
                site.observe(x)

    def recorded(self) -> Iterator[tuple[QuantSite, Tensor]]:
        """(site, everything that reached it before quantization ``[rows, size]``) of an observing pass."""
        for site, tensors in self._seen.items():
            yield site, torch.cat([t.reshape(-1, site.size) for t in tensors])

    def _record(self, site: QuantSite, x: Tensor) -> None:
        """Keep what reached the site, without padding."""
        x = x.detach()
        valid = self._valid
        if valid is None and self.lengths is not None:
            valid = self._before_end(x)
        self._seen.setdefault(site, []).append(x if valid is None else x[valid])

    def _before_end(self, x: Tensor) -> Tensor:
        """bool ``[time, batch]``: what of the sequences ``x`` is no padding."""
        return torch.arange(len(x), device=x.device)[:, None] < self.lengths

    def weight(self, module: Weight) -> Tensor:
        """The module's weight, fake-quantized if it is on; once a forward."""
        key = module.key
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
    ) -> Any:
        """Run ``step(executor, x_t, *states) -> (output, *states)`` along time; the outputs as a sequence.

        An output that is a tuple gives a tuple of sequences.
        """
        values = [self.state[name] for name, _, _ in states]
        outputs = []
        steps = sequence.unbind(0)
        valid = None if self.lengths is None else self._before_end(sequence)
        for t in reversed(range(len(steps))) if reverse else range(len(steps)):
            if valid is None:
                output, *values = step(self, steps[t], *values)
            else:
                self._valid = valid[t]
                output, *after = step(self, steps[t], *values)
                values = [torch.where(valid[t, :, None], a, b) for a, b in zip(after, values, strict=True)]
            outputs.append(output)
        self._valid = None
        self.state.update({name: value for (name, _, _), value in zip(states, values, strict=True)})
        if reverse:
            outputs.reverse()
        if isinstance(outputs[0], tuple):
            return tuple(torch.stack(parts) for parts in zip(*outputs, strict=True))
        return torch.stack(outputs)

    def accumulate(self, *terms: Tensor) -> Tensor:
        """Sum of accumulators, not quantized."""
        return sum(terms[1:], terms[0])

    def residual(self, site: QuantSite, a: Tensor, b: Tensor) -> Tensor:
        """Sum of two quantized tensors of different scales."""
        return self._quantize(site, a + b)

    def relu(self, site: QuantSite, x: Tensor) -> Tensor:
        return self._quantize(site, torch.relu(x))

    def mask(self, x: Tensor) -> Tensor:
        """Sequences with padding set to 0."""
        valid = self._before_end(x)
        return torch.where(valid.reshape(*valid.shape, *[1] * (x.dim() - 2)), x, x.new_zeros(()))

    def shorten(self, lengths: Tensor, factor: int) -> Tensor:
        """Lengths after every ``factor``-th step has been kept."""
        return (lengths + factor - 1).div(factor, rounding_mode="floor")

    def subsample(self, x: Tensor, factor: int) -> Tensor:
        return x[::factor]

    def convolution(self, module: Convolution, x: Tensor) -> Tensor:
        """Sequences ``[time, batch, bands * channels]`` -> ``[time', batch, bands', filters]``."""
        image = x.reshape(*x.shape[:2], -1, module.channels).permute(1, 3, 0, 2)
        if module.batch_statistics and self.training:
            return module.normalized(_convolve(module, image, module.kernel, None), self.lengths)
        return _convolve(module, image, self.weight(module), module.bias).permute(2, 0, 3, 1)

    def flatten(self, x: Tensor) -> Tensor:
        return x.flatten(-2)

    def attention_weights(
        self, v: Weight, tanh: Activation, exponential: Exponential, query: Tensor, keys: Tensor, lengths: Tensor
    ) -> Tensor:
        """Query ``[batch, size]``, keys ``[memory, batch, size]`` -> probabilities ``[batch, memory]``."""
        both = self._quantize_sum(tanh.site, query + keys, lengths)
        score = torch.nn.functional.linear(tanh(both), self.weight(v))[..., 0].T
        return exponential(score, torch.arange(score.shape[1], device=score.device) < lengths[:, None])

    def attention_context(self, site: QuantSite, weights: Tensor, values: Tensor) -> Tensor:
        """Probabilities ``[batch, memory]``, values ``[memory, batch, size]`` -> their mean ``[batch, size]``."""
        return self._quantize(site, torch.einsum("bs,sbd->bd", weights, values))

    def _quantize_sum(self, site: QuantSite, x: Tensor, lengths: Tensor) -> Tensor:
        """As ``add`` for ``[memory, batch, size]``; of so many values only the extremes are kept for the observer."""
        if self.observing:
            valid = torch.arange(len(x), device=x.device)[:, None] < lengths
            if self._valid is not None:
                valid = valid & self._valid
            if valid.any():
                rows = x.detach()[valid]
                self._seen.setdefault(site, []).append(torch.stack([rows.amin(0), rows.amax(0)]))
        return self._fake_quantize(site, x)

    def _quantize(self, site: QuantSite, x: Tensor) -> Tensor:
        if self.observing:
            self._record(site, x)
        return self._fake_quantize(site, x)

    def _fake_quantize(self, site: QuantSite, x: Tensor) -> Tensor:
        if not site.quantizing:
            return x
        if site not in self._parameters:
            self._parameters[site] = site.simulation_parameters(torch.empty(0, device=x.device))
        return FakeQuantize.apply(x.float(), *self._parameters[site], *site.range())


def _convolve(module: Convolution, image: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``[batch, channels, time, band]`` -> ``[batch, filters, time', band']``; a row of the weight is a filter."""
    kernel = weight.reshape(len(weight), *module.kernel_size, module.channels).permute(0, 3, 1, 2)
    padding = tuple(size // 2 for size in module.kernel_size)
    return torch.nn.functional.conv2d(image, kernel, bias, module.strides, padding)
