"""Records the float baseline of a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from irnn.errors import IrnnError
from irnn.program import Tensor
from irnn.program.windows import Window
from irnn.quant.finite import not_finite
from irnn.quant.site import QuantSite
from irnn.wiring.executor import check_ends, check_factor, need_undilated
from irnn.wiring.parts import ActivationPart, AffinePart, ExponentialPart, NormPart, ThresholdPart, WeightPart
from irnn.wiring.record import Symbol
from irnn.wiring.record_sequences import SequenceRecorder, strided


class FloatRecorder(SequenceRecorder):
    """Records the same network in float32: the baseline that the integer program is measured against."""

    kind = "float"
    ONE = np.ones(1)

    def embedding(self, module: WeightPart, ids: Symbol) -> Symbol:
        table = _float_tensor(module.where, module.weight)
        return self._float("embedding", (ids,), self._name(module), (table.data.shape[1],), {"table": table})

    def linear(self, module: WeightPart, x: Symbol) -> Symbol:
        rows = module.weight.shape[0]
        bias = module.bias if module.bias is not None else torch.zeros(rows)
        tensors = {
            "weight": self._once(_float_tensor(module.where, module.weight)),
            "bias": self._once(_float_tensor(f"the bias of {module.where}", bias)),
        }
        return self._float("linear", (x,), self._name(module), (*x.shape[:-1], rows), tensors)

    def _once(self, tensor: Tensor) -> Tensor | str:
        """The constant, or the name under which it is there: a tied weight is the embedding's table."""
        shared = [name for name, other in self.tensors.items() if np.shares_memory(other.data, tensor.data)]
        return shared[0] if shared else tensor

    def requantize(self, site: QuantSite, *terms: Symbol) -> Symbol:
        self._need_one_time(self._name(site), terms)
        x = terms[0]
        for term in terms[1:]:
            x = self._float("add", (x, term), self._name(site), x.shape)
        return x

    def add(self, site: QuantSite, a: Symbol, b: Symbol) -> Symbol:
        return self._float("add", (a, b), f"{self._name(site)}.sum", a.shape)

    def multiply(self, a: Symbol, b: Symbol) -> Symbol:
        self._need_one_time(f"{self._scope}product", (a, b))
        return self._float("multiply", (a, b), f"{self._scope}product", a.shape)

    def affine(self, module: AffinePart, x: Symbol) -> Symbol:
        tensors = {
            "gain": _float_tensor(f"the gain of {module.where}", module.gain),
            "bias": _float_tensor(f"the shift of {module.where}", module.shift),
        }
        return self._float("affine", (x,), self._name(module), x.shape, tensors)

    def scale(self, x: Symbol, factor: float) -> Symbol:
        check_factor(factor)
        return self._float("scale", (x,), f"{x.name}.scaled", x.shape, attributes={"factor": float(factor)})

    def accumulate(self, *terms: Symbol) -> Symbol:
        x = terms[0]
        for term in terms[1:]:
            x = self._float("add", (x, term), f"{self._scope}accumulated", x.shape)
        return x

    def residual(self, site: QuantSite, *terms: Symbol) -> Symbol:
        return self.requantize(site, *terms)

    def subtract(self, site: QuantSite, a: Symbol, b: Symbol) -> Symbol:
        self._need_one_time(self._name(site), (a, b))
        return self._float("subtract", (a, b), self._name(site), a.shape)

    def join(self, site: QuantSite, parts: list[Symbol]) -> Symbol:
        return self.concat(parts)

    def clamp(self, site: QuantSite, x: Symbol, low: float | None, high: float | None) -> Symbol:
        check_ends(low, high)
        ends = {key: float(end) for key, end in (("low", low), ("high", high)) if end is not None}
        return self._float("clamp", (x,), self._name(site), x.shape, attributes=ends)

    def mean_pool(self, window: Window, channels: int, x: Symbol) -> Symbol:
        need_undilated(window)
        attributes = {"channels": channels, **window.attributes()}
        shape = (self._pooled(window, channels, x),)
        return self._float("mean_pool", (x,), f"{x.name}.mean", shape, attributes=attributes, axes=strided(x, window))

    def time_mean(self, x: Symbol) -> Symbol:
        return self._float("time_mean", self._valid(x), f"{x.name}.mean", x.shape, axes=())

    def relu(self, site: QuantSite, *terms: Symbol) -> Symbol:
        x = self.requantize(site, *terms)
        return self._float("relu", (x,), self._name(site), x.shape)

    def mod_relu(self, module: ThresholdPart, site: QuantSite, x: Symbol) -> Symbol:
        tensors = {"bias": _float_tensor(f"the bias of {module.where}", module.bias)}
        return self._float("mod_relu", (x,), self._name(module), x.shape, tensors)

    def attention_weights(
        self,
        v: WeightPart,
        tanh: ActivationPart,
        exponential: ExponentialPart,
        query: Symbol,
        keys: Symbol,
        lengths: Symbol,
    ) -> Symbol:
        tensors = {"weight": _float_tensor(v.where, v.weight)}
        axes = (*query.axes, *keys.axes)
        return self._float("attention_weights", (query, keys, lengths), f"{self._scope}weights", (), tensors, axes=axes)

    def attention_context(self, site: QuantSite, weights: Symbol, values: Symbol) -> Symbol:
        axes = weights.axes[:1]
        return self._float("attention_context", (weights, values), self._name(site), values.shape, axes=axes)

    def softmax_mean(self, exponential: ExponentialPart, site: QuantSite, score: Symbol, values: Symbol) -> Symbol:
        self._need_one_time(self._name(site), (score, values))
        return self._float("softmax_mean", (score, *self._valid(values)), self._name(site), values.shape, axes=())

    def norm(self, module: NormPart, site: QuantSite, x: Symbol) -> Symbol:
        tensors = {
            "gamma": _float_tensor(module.where, module.weight),
            "beta": _float_tensor(f"the bias of {module.where}", module.bias),
        }
        attributes = {"groups": module.groups, "epsilon": module.EPSILON}
        return self._float(f"{module.kind}_norm", (x,), self._name(module), x.shape, tensors, attributes)

    def activation(self, module: ActivationPart, x: Symbol) -> Symbol:
        if module.output is None:
            return self._float(module.function, (x,), self._name(module), x.shape)
        return self._float("curve", (x,), self._name(module), x.shape, attributes={"function": module.function})

    def _at(self, site: QuantSite, x: Symbol) -> Symbol:
        return x

    def _state_format(self, site: QuantSite) -> tuple[str, np.ndarray, int]:
        return "float32", self.ONE, 0

    def _float(
        self,
        op: str,
        inputs: tuple[Symbol, ...],
        name: str,
        shape: tuple[int, ...],
        tensors: Mapping[str, Tensor | str] | None = None,
        attributes: dict[str, Any] | None = None,
        axes: tuple[str, ...] | None = None,
    ) -> Symbol:
        return self._emit(op, inputs, name, "float32", shape, self.ONE, 0, attributes, tensors, axes)


def _float_tensor(name: str, parameter: torch.Tensor) -> Tensor:
    if problem := not_finite(name, parameter):
        raise IrnnError(f"{problem}; the float baseline needs numbers: train again from intact weights")
    return Tensor(parameter.detach().cpu().numpy(), 32)
