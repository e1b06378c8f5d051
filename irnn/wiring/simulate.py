"""Executes a network's wiring in float: training, calibration and the evaluation of stages before the last.

Sites that are on fake-quantize; sites that observe see every tensor of a training forward.  Sequences are
``[time, batch, size]`` here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from irnn.errors import IrnnError
from irnn.program.windows import Window
from irnn.quant.codes.base import TABLE_HIGH
from irnn.quant.codes.multibit import FakeMultibit
from irnn.quant.fake import FakeQuantize, grid
from irnn.quant.lines import PwlFunction
from irnn.quant.site import QuantSite
from irnn.wiring.executor import StateSpec, check_ends, check_factor, need_undilated, not_scanned, state_taken
from irnn.wiring.parts import (
    ActivationPart,
    AffinePart,
    ConvolutionPart,
    ExponentialPart,
    GatesPart,
    NormPart,
    ThresholdPart,
    WeightPart,
)
from irnn.wiring.recurrent_product import RecurrentProduct
from irnn.wiring.simulate_sites import SimulatedSites, extremes
from irnn.wiring.simulate_windows import bordered, convolve, flat, image_of

if TYPE_CHECKING:
    from irnn.wiring.compiled_steps import CompiledSteps


class Simulation:
    """One forward pass.  ``state`` maps names to ``[batch, size]`` tensors and is replaced as scans end."""

    def __init__(self, state: dict[str, Tensor], *, training: bool, observing: bool) -> None:
        self.state = dict(state)
        self.training = training
        self.observing = observing
        self._weights: dict[tuple[object, ...], Tensor] = {}
        self.sites = SimulatedSites()
        self._products: dict[WeightPart, RecurrentProduct] = {}
        self._seen: dict[QuantSite, list[Tensor]] = {}
        self._scanned: set[str] = set()  # states that a scan has walked
        self.lengths: Tensor | None = None  # where the sequences of the batch end, see `ragged`
        self._valid: Tensor | None = None  # rows of the batch that have not ended, within a scan
        self.compiled: CompiledSteps | None = None  # what compiles the steps of scans, where that is asked for
        self._dropped: dict[int, tuple[Tensor, Tensor, Tensor]] = {}  # by id: a result of dropout, its input, its mask

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

    def record(self, site: QuantSite, x: Tensor) -> None:
        """Keep what reached the site, without padding."""
        x = x.detach()
        valid = self._no_padding(x)
        if valid is not None:
            # Which rows these are a GPU alone knows, and it is not waited for: a training step wants only the extremes.
            ends = x.device.type != "cpu" and self.training and site.config.observer != "percentile"
            x = extremes(x, valid) if ends else x[valid]
        self._seen.setdefault(site, []).append(x)

    def _no_padding(self, x: Tensor) -> Tensor | None:
        """What of ``x`` is no padding, as an index of its first axes; None: all."""
        if self._valid is None and self.lengths is not None and x.dim() > 2:  # a value without time has no padding
            return self._before_end(x)
        return self._valid

    def _before_end(self, x: Tensor) -> Tensor:
        """bool ``[time, batch]``: what of the sequences ``x`` is no padding."""
        if self.lengths is None:
            raise IrnnError("there is nothing to mask by: say where sequences end (ragged) first")
        return torch.arange(len(x), device=x.device)[:, None] < self.lengths

    def weight(self, module: WeightPart) -> Tensor:
        """The module's weight, fake-quantized if it is on; once a forward."""
        key = module.key
        if key not in self._weights:
            weight = module.weight
            if module.quantizing:
                weight = module.code.fake(weight)
            self._weights[key] = weight
        return self._weights[key]

    def embedding(self, module: WeightPart, ids: Tensor) -> Tensor:
        """Rows of the table; where each has a scale of its own they are brought to one, of 8 bits."""
        table = self.weight(module)
        rows = torch.nn.functional.embedding(ids, table)
        if module.error_cost is not None:
            module.error_cost.looked_up(rows)
        if not (module.quantizing and module.code.per_row):
            return rows
        scale = table.detach().abs().amax() / TABLE_HIGH
        return FakeQuantize.apply(rows.float(), *grid(scale, None, -TABLE_HIGH, TABLE_HIGH), None)

    def input(self, site: QuantSite, x: Tensor) -> Tensor:
        """Features that enter the network."""
        return self.requantize(site, x)

    def operand(self, module: WeightPart, x: Tensor) -> Tensor:
        """What the module multiplies: x, or where it is written in codes at run time, what these stand for.

        Dropout leaves zeros, of which codes have none and outside of training there are none either: what is written
        in codes is what dropout has read, and its mask falls on the codes.
        """
        if module.operand_codes is None:
            return x
        dropped = self._dropped.get(id(x))
        if dropped is None:
            return FakeMultibit.apply(x.float(), module.operand_codes)
        _, whole, mask = dropped
        return FakeMultibit.apply(whole.float(), module.operand_codes) * mask

    def linear(self, module: WeightPart, x: Tensor) -> Tensor:
        x = self.operand(module, x)
        if module.recurrent and torch.is_grad_enabled():
            y = self._recurrent_product(module)(x)
            y = y if module.bias is None else y + module.bias.to(y.dtype)
        else:
            y = torch.nn.functional.linear(x, self.weight(module), module.bias)
        if module.error_cost is not None:
            module.error_cost.product(x, y)
        return y

    def _recurrent_product(self, module: WeightPart) -> RecurrentProduct:
        if module not in self._products:
            self._products[module] = RecurrentProduct(self.product_weight(module))
        return self._products[module]

    def product_weight(self, module: WeightPart) -> Tensor:
        """The module's weight as products of many steps read it: under autocast it is rounded once for all."""
        weight = self.weight(module)
        device = weight.device.type
        return weight.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else weight

    def requantize(self, site: QuantSite, *terms: Tensor) -> Tensor:
        """Sum of the terms, quantized at ``site``."""
        x = terms[0]
        for term in terms[1:]:
            x = x + term
        return self._quantize(site, x)

    def add(self, site: QuantSite, a: Tensor, b: Tensor) -> Tensor:
        """Saturating sum of two tensors that both live at ``site``: the range has to hold the sum as well."""
        return self._quantize(site, a + b)

    def affine(self, module: AffinePart, x: Tensor) -> Tensor:
        return x * module.gain + module.shift

    def scale(self, x: Tensor, factor: float) -> Tensor:
        check_factor(factor)
        return x * factor

    def multiply(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b

    def norm(self, module: NormPart, site: QuantSite, x: Tensor) -> Tensor:
        return self._quantize(site, module(x))

    def activation(self, module: ActivationPart, x: Tensor) -> Tensor:
        """Observers see the function itself: a table ends where they have said, and could only shrink their range."""
        if module.output is None:
            y = self.sites.looked_up(module, x)
            return module(x) if y is None else y
        if self.observing:
            self.record(module.output, module.exact(x))
        return self._fake_quantize(module.output, module(x))

    def gates(self, gates: GatesPart, x: Tensor, parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        lines = gates.lines(x.device)
        if lines is None:
            return self._one_by_one(gates, parts)
        y = self.sites.looked_up(gates, x)
        if y is None:
            y = PwlFunction.apply(gates.own(x).float(), *lines)
        return y.unbind(-2)

    def _one_by_one(self, gates: GatesPart, parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(self.activation(f, part) for f, part in zip(gates.functions, parts, strict=False))

    def complement(self, x: Tensor) -> Tensor:
        return 1 - x

    def minimum(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.minimum(a, b)

    def split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        return x.chunk(parts, dim=-1)

    def slice(self, x: Tensor, start: int, stop: int) -> Tensor:
        return x[..., start:stop]

    def concat(self, parts: list[Tensor]) -> Tensor:
        return torch.cat(parts, dim=-1)

    def dropout(self, x: Tensor, p: float) -> Tensor:
        if not (self.training and p):
            return x
        mask = torch.nn.functional.dropout(torch.ones_like(x), p)
        y = x * mask
        self._dropped[id(y)] = y, x, mask
        return y

    def scan(
        self,
        step: Callable[..., tuple[Any, ...]],
        sequence: Tensor,
        states: list[StateSpec],
        *,
        reverse: bool = False,
        whole: Callable[..., Any] | None = None,
    ) -> Any:
        values = self._start(states)
        if whole is not None and not (reverse and self.lengths is not None):
            return self._at_once(whole, sequence, states, values, reverse=reverse)
        outputs = []
        steps = sequence.unbind(0)
        valid = None if self.lengths is None else self._before_end(sequence)
        one = self._one_step(step, steps, values)
        self.sites.steps = len(steps)
        for t in reversed(range(len(steps))) if reverse else range(len(steps)):
            if valid is None:
                output, *values = one(t, *values)
            else:
                self._valid = valid[t]
                output, *after = one(t, *values)
                values = [torch.where(valid[t, :, None], a, b) for a, b in zip(after, values, strict=True)]
            outputs.append(output)
        self._valid, self.sites.steps = None, 1
        self.state.update({name: value for (name, _, _), value in zip(states, values, strict=True)})
        if reverse:
            outputs.reverse()
        if isinstance(outputs[0], tuple):
            return tuple(torch.stack(parts) for parts in zip(*outputs, strict=True))
        return torch.stack(outputs)

    def _one_step(
        self, step: Callable[..., tuple[Any, ...]], steps: Sequence[Tensor], values: Sequence[Tensor]
    ) -> Callable[..., tuple[Any, ...]]:
        """``step`` of the index of a step and the states, compiled where that is asked for."""
        compiled = None if self.compiled is None else self.compiled.bind(self, step, steps, values)
        return compiled or (lambda t, *states: step(self, steps[t], *states))

    def _at_once(
        self,
        whole: Callable[..., Any],
        sequence: Tensor,
        states: list[StateSpec],
        values: list[Tensor],
        *,
        reverse: bool,
    ) -> Tensor:
        """A scan by the way through all steps; the last states are those of the last valid steps."""
        output, *after = whole(self, sequence.flip(0) if reverse else sequence, *values)
        self.state.update({spec.name: self.last(steps) for spec, steps in zip(states, after, strict=True)})
        return output.flip(0) if reverse else output

    def fused(self, layer: Callable[..., Any], x: Tensor, states: list[StateSpec]) -> Tensor | None:
        """Unless observers watch: they see what only the wiring shows."""
        if self.observing:
            return None
        y, after = layer(x, self.lengths, self._start(states))
        self.state.update({spec.name: value for spec, value in zip(states, after, strict=True)})
        return y

    def _start(self, states: list[StateSpec]) -> list[Tensor]:
        """The states before a scan; each belongs to one."""
        for spec in states:
            if spec.name in self._scanned:
                raise IrnnError(state_taken(spec.name))
            self._scanned.add(spec.name)
        return [self.state[spec.name] for spec in states]

    def start(self, state: StateSpec, x: Tensor) -> None:
        if state.name in self._scanned:
            raise IrnnError(state_taken(state.name))
        self.state[state.name] = self._quantize(state.site, x)

    def final(self, state: StateSpec) -> Tensor:
        if state.name not in self._scanned:
            raise IrnnError(not_scanned(state.name))
        return self.state[state.name]

    def accumulate(self, *terms: Tensor) -> Tensor:
        """Sum of accumulators, not quantized."""
        return sum(terms[1:], terms[0])

    def residual(self, site: QuantSite, *terms: Tensor) -> Tensor:
        """Sum of quantized tensors of different scales."""
        return self.requantize(site, *terms)

    def subtract(self, site: QuantSite, a: Tensor, b: Tensor) -> Tensor:
        return self._quantize(site, a - b)

    def join(self, site: QuantSite, parts: list[Tensor]) -> Tensor:
        return self._quantize(site, torch.cat(parts, dim=-1))

    def relu(self, site: QuantSite, *terms: Tensor) -> Tensor:
        return self._quantize(site, torch.relu(self.accumulate(*terms)))

    def mod_relu(self, module: ThresholdPart, site: QuantSite, x: Tensor) -> Tensor:
        """b in steps of the site, where that is on, as the integers have it."""
        size = torch.relu(x.abs() + self._fake_quantize(site, module.bias))
        return self._quantize(site, torch.sign(x) * size)

    def clamp(self, site: QuantSite, x: Tensor, low: float | None, high: float | None) -> Tensor:
        check_ends(low, high)
        return self._quantize(site, x.clamp(low, high))

    def mask(self, x: Tensor) -> Tensor:
        """Sequences with padding set to 0."""
        valid = self._before_end(x)
        return torch.where(valid.reshape(*valid.shape, *[1] * (x.dim() - 2)), x, x.new_zeros(()))

    def shorten(self, lengths: Tensor, factor: int, offset: int | None = None) -> Tensor:
        """Lengths behind a stride."""
        return (lengths + (factor - 1 if offset is None else offset)).div(factor, rounding_mode="floor")

    def subsample(self, x: Tensor, factor: int) -> Tensor:
        return x[::factor]

    def last(self, x: Tensor) -> Tensor:
        """The last valid step of each sequence."""
        if self.lengths is None:
            return x[-1]
        return x[self.lengths - 1, torch.arange(x.shape[1], device=x.device)]

    def step(self, x: Tensor, index: int) -> Tensor:
        return x[index]

    def time_mean(self, x: Tensor) -> Tensor:
        if self.lengths is None:
            return x.mean(0)
        total = torch.where(self._before_end(x)[..., None], x, x.new_zeros(())).sum(0)
        return total / self.lengths[:, None].to(x.dtype)

    def time_max(self, x: Tensor) -> Tensor:
        if self.lengths is None:
            return x.amax(0)
        return torch.where(self._before_end(x)[..., None], x, x.new_full((), -math.inf)).amax(0)

    def softmax_mean(self, exponential: ExponentialPart, site: QuantSite, score: Tensor, values: Tensor) -> Tensor:
        valid = torch.ones_like(score[..., 0], dtype=torch.bool) if self.lengths is None else self._before_end(score)
        return self.attention_context(site, exponential(score[..., 0].T, valid.T), values)

    def repeat(self, x: Tensor, like: Tensor) -> Tensor:
        return x.expand(len(like), *x.shape)

    def max_pool(self, window: Window, channels: int, x: Tensor) -> Tensor:
        image = bordered(image_of(x, channels), window, -math.inf)
        return flat(torch.nn.functional.max_pool2d(image, window.kernel, window.strides, 0, window.dilation))

    def mean_pool(self, window: Window, channels: int, x: Tensor) -> Tensor:
        need_undilated(window)
        image = bordered(image_of(x, channels), window, 0.0)
        return flat(torch.nn.functional.avg_pool2d(image, window.kernel, window.strides))

    def convolution(self, module: ConvolutionPart, x: Tensor) -> Tensor:
        """Sequences ``[time, batch, bands * channels]`` -> ``[time', batch, bands', filters]``."""
        image = image_of(x, module.channels)
        if module.batch_statistics and self.training:
            if self.lengths is None:
                raise IrnnError(f"{module.where} normalizes by its valid steps: say where sequences end (ragged) first")
            return module.normalized(convolve(module, image, module.kernel, None), self.lengths)
        return convolve(module, image, self.weight(module), module.bias).permute(2, 0, 3, 1)

    def flatten(self, x: Tensor) -> Tensor:
        return x.flatten(-2)

    def attention_weights(
        self,
        v: WeightPart,
        tanh: ActivationPart,
        exponential: ExponentialPart,
        query: Tensor,
        keys: Tensor,
        lengths: Tensor,
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
                self._seen.setdefault(site, []).append(extremes(x.detach(), valid))
        return self._fake_quantize(site, x)

    def _quantize(self, site: QuantSite, x: Tensor) -> Tensor:
        if self.observing:
            self.record(site, x)
        return self._fake_quantize(site, x)

    def _fake_quantize(self, site: QuantSite, x: Tensor) -> Tensor:
        return self.sites.quantize(site, x) if site.quantizing else x
