"""Records the integer-only program: every constant that it needs is made here."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from irnn.arithmetic import fixed_point
from irnn.arithmetic.multipliers import choose_multiplier
from irnn.errors import IrnnError
from irnn.program import Tensor, Value
from irnn.quant.config import SYMMETRIC_ROLES, WEIGHT_ROLES
from irnn.quant.finite import not_finite
from irnn.quant.pwl import PwlTable
from irnn.quant.site import QuantSite
from irnn.wiring.parts import ActivationPart, ExponentialPart, NormPart, WeightPart
from irnn.wiring.record import Recorder, Symbol, shorten

SIGMOID_FORMAT = (1 / 255, -128)  # scale and zero point of a sigmoid gate
# No row's scale is so small that a bias leaves this.
BIAS_LIMIT = 2.0**30


class IntegerRecorder(Recorder):
    """Records integers only.  Requires every site's range (``irnn.qat.calibrate`` or training)."""

    kind = "integer"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._weights: dict[tuple[object, ...], tuple[np.ndarray, np.ndarray, str]] = {}

    def features(self, name: str, site: QuantSite) -> Symbol:
        """Declare the program's input: integers of ``site``'s format."""
        scale, zero_point = site.qparams()
        low, high = site.range()
        symbol = self._declare(name, "int8", (site.size,), scale, int(zero_point[0]))
        self.inputs[name] = Value("int8", (site.size,), float(scale[0]), int(zero_point[0]), low, high)
        self.values[symbol.name] = self.inputs[name]
        return symbol

    def embedding(self, module: WeightPart, ids: Symbol) -> Symbol:
        table, scale, tensor = self._weight(module, "table")
        return self._emit(
            "embedding", (ids,), self._name(module), "int8", (table.shape[1],), scale, tensors={"table": tensor}
        )

    def linear(self, module: WeightPart, x: Symbol) -> Symbol:
        if len(x.scale) != 1:
            raise IrnnError(
                f"{self._name(module)} reads {x.name}, which has several scales; a matrix product needs one"
            )
        bias = np.zeros(module.weight.shape[0])
        if module.bias is not None:
            bias = _numbers(f"the bias of {module.where}", module.bias)
        # A row's scale is never so small that its bias would leave +-2**30.
        floor = np.abs(bias) / (x.scale[0] * BIAS_LIMIT) if module.code.per_row else None
        weight, scale, tensor = self._weight(module, "weight", floor)
        acc_scale = x.scale * scale
        bias_i64 = _floor_half(bias / acc_scale) - x.zero_point * weight.sum(1, dtype=np.int64)
        if np.abs(bias_i64).max() > fixed_point.INT32_MAX:
            raise IrnnError(f"the bias of {self._name(module)} does not fit int32 at the scale of its accumulator")
        return self._emit(
            "linear", (x,), self._name(module), "int32", (*x.shape[:-1], len(weight)),
            shorten(acc_scale),
            tensors={"weight": tensor, "bias": Tensor(bias_i64.astype(np.int32), 32)},
        )  # fmt: skip

    def requantize(self, site: QuantSite, *terms: Symbol) -> Symbol:
        return self._requantize(site, terms, site.range()[0])

    def relu(self, site: QuantSite, x: Symbol) -> Symbol:
        """Nothing below the integer of 0."""
        return self._requantize(site, (x,), max(site.range()[0], self._format(site)[2]))

    def _requantize(self, site: QuantSite, terms: tuple[Symbol, ...], low: int) -> Symbol:
        if any(term.zero_point for term in terms):
            return self._residual(site, terms, low)
        dtype, scale, zero_point = self._format(site)
        high = site.range()[1]
        tensors = _factors([term.scale / scale for term in terms], site.where)
        return self._emit(
            "requantize", terms, self._name(site), dtype, terms[0].shape, scale, zero_point,
            {"zero_point": zero_point, "low": low, "high": high}, tensors,
        )  # fmt: skip

    def residual(self, site: QuantSite, *terms: Symbol) -> Symbol:
        return self._residual(site, terms, site.range()[0])

    def _residual(self, site: QuantSite, terms: tuple[Symbol, ...], low: int) -> Symbol:
        """The sum of quantized values; an accumulator among them is an :class:`IrnnError`."""
        for term in terms:
            if term.dtype == "int32":
                raise IrnnError(
                    f"{self._name(site)} sums {[t.name for t in terms]}: {term.name} holds accumulators, which do not "
                    "add up with values that have a zero point; requantize it first, then take their residual sum"
                )
        dtype, scale, zero_point = self._format(site)
        attributes = {
            "zero_points": [term.zero_point for term in terms], "zero_point": zero_point, "low": low,
            "high": site.range()[1],
        }  # fmt: skip
        tensors = _factors([term.scale / scale for term in terms], site.where)
        name, shape = self._name(site), terms[0].shape
        return self._emit("residual", terms, name, dtype, shape, scale, zero_point, attributes, tensors)

    def accumulate(self, *terms: Symbol) -> Symbol:
        """Sum of accumulators as int32 at the coarsest of their scales, which loses nothing worth a bit."""
        for term in terms:
            if term.zero_point:
                raise IrnnError(f"cannot accumulate {term.name}: it has the zero point {term.zero_point}; requantize")
        scale = np.array([max(term.scale.max() for term in terms)])
        attributes = {"zero_point": 0, "low": fixed_point.INT32_MIN, "high": fixed_point.INT32_MAX}
        name = f"{self._scope}accumulated"
        tensors = _factors([term.scale / scale for term in terms], name)
        return self._emit("requantize", terms, name, "int32", terms[0].shape, scale, 0, attributes, tensors)

    def attention_weights(
        self,
        v: WeightPart,
        tanh: ActivationPart,
        exponential: ExponentialPart,
        query: Symbol,
        keys: Symbol,
        lengths: Symbol,
    ) -> Symbol:
        table = self._table(tanh, query)
        low, high = tanh.site.range()
        _, scale, tensor = self._weight(v, "weight")
        multiplier, shift = choose_multiplier(scale * table.output_scale / exponential.STEP, v.where)
        tensors = {
            "weight": tensor,
            **_pwl_tensors(table),
            "table": Tensor(exponential.table(), 16),
            "multiplier": Tensor(multiplier, 32),
            "shift": Tensor(shift.astype(np.int8), 8),
        }
        attributes = {
            "low": low, "high": high, "tanh_shift": int(table.shift), "tanh_low": table.output_min,
            "tanh_high": table.output_max,
        }  # fmt: skip
        return self._emit(
            "attention_weights", (query, keys, lengths), f"{self._scope}weights", "uint16", (),
            np.array([1 / fixed_point.EXP_ONE]), 0, attributes, tensors, axes=(*query.axes, *keys.axes),
        )  # fmt: skip

    def attention_context(self, site: QuantSite, weights: Symbol, values: Symbol) -> Symbol:
        dtype, scale, zero_point = self._format(site)
        low, high = site.range()
        factor = values.scale / scale * 2.0**-fixed_point.ATTENTION_FRACTION_BITS
        multiplier, shift = choose_multiplier(factor, site.where)
        attributes = {
            "zero_point_values": values.zero_point, "zero_point": zero_point, "low": low, "high": high,
        }  # fmt: skip
        tensors = {"multiplier": Tensor(multiplier, 32), "shift": Tensor(shift.astype(np.int8), 8)}
        return self._emit(
            "attention_context", (weights, values), self._name(site), dtype, values.shape, scale, zero_point,
            attributes, tensors, axes=weights.axes[:1],
        )  # fmt: skip

    def add(self, site: QuantSite, a: Symbol, b: Symbol) -> Symbol:
        dtype, scale, zero_point = self._symmetric_format(site, "a saturating sum")
        low, high = site.range()
        if not all(np.array_equal(np.broadcast_to(s.scale, scale.shape), scale) for s in (a, b)):
            raise IrnnError(f"cannot add {a.name} and {b.name}: both must live at the site {self._name(site)}")
        name = f"{self._name(site)}.sum"
        return self._emit("add", (a, b), name, dtype, a.shape, scale, zero_point, {"low": low, "high": high})

    def multiply(self, a: Symbol, b: Symbol) -> Symbol:
        attributes = {"zero_point_a": a.zero_point, "zero_point_b": b.zero_point}
        name = f"{self._scope}product"
        return self._emit("multiply", (a, b), name, "int32", a.shape, shorten(a.scale * b.scale), 0, attributes)

    def norm(self, module: NormPart, site: QuantSite, x: Symbol) -> Symbol:
        dtype, scale, zero_point = self._symmetric_format(site, "a norm")
        low, high = site.range()
        groups = module.groups
        gamma, beta = (
            _numbers(f"the {part} of {module.where}", getattr(module, part)).reshape(groups, -1)
            for part in ("weight", "bias")
        )
        if gamma.shape[1] > fixed_point.NORM_LENGTH_MAX:
            raise IrnnError(f"{self._name(module)}: norms of up to {fixed_point.NORM_LENGTH_MAX} elements fit int64")
        fraction = 2.0**fixed_point.NORM_FRACTION_BITS
        step = np.maximum(np.abs(gamma).max(1) / 32767, np.abs(beta).max(1) * fraction / BIAS_LIMIT)
        step = np.where(step > 0, step, 1.0)[:, None]
        site_scale = scale.reshape(-1)[:: len(scale) // groups if len(scale) > 1 else 1]
        multiplier, shift = choose_multiplier(step[:, 0] / fraction / site_scale, module.where)
        tensors = {
            "gamma": Tensor(_floor_half(gamma / step).astype(np.int16).reshape(-1), 16),
            "beta": Tensor(_floor_half(beta * fraction / step).astype(np.int32).reshape(-1), 32),
            "multiplier": Tensor(multiplier, 32),
            "shift": Tensor(shift.astype(np.int8), 8),
        }
        attributes = {"groups": groups, "low": low, "high": high}
        op = f"{module.kind}_norm"
        return self._emit(op, (x,), self._name(module), dtype, x.shape, scale, zero_point, attributes, tensors)

    def activation(self, module: ActivationPart, x: Symbol) -> Symbol:
        table = self._table(module, x)
        attributes = {
            "function": module.function, "shift": int(table.shift), "low": table.output_min, "high": table.output_max,
        }  # fmt: skip
        scale = np.array([table.output_scale])
        zero_point, tensors = table.output_zero_point, _pwl_tensors(table)
        return self._emit("pwl", (x,), self._name(module), "int8", x.shape, scale, zero_point, attributes, tensors)

    def complement(self, x: Symbol) -> Symbol:
        if (float(x.scale[0]), x.zero_point, len(x.scale)) != (*SIGMOID_FORMAT, 1):
            raise IrnnError(f"cannot take the complement of {x.name}: only a sigmoid's output has one (scale 1/255)")
        return super().complement(x)

    def _table(self, module: ActivationPart, x: Symbol) -> PwlTable:
        table = module.table()
        if (table.scale, table.zero_point) != (x.scale[0], x.zero_point) or len(x.scale) != 1:
            raise IrnnError(f"the table of {self._name(module)} was fitted for another scale than that of {x.name}")
        return table

    def _format(self, site: QuantSite) -> tuple[str, np.ndarray, int]:
        scale, zero_point = site.qparams()
        if site.groups > 1:
            scale = scale.repeat(site.size // site.groups)
        return ("int8" if site.bits <= 8 else "int16"), scale, int(zero_point[0])

    def _symmetric_format(self, site: QuantSite, operation: str) -> tuple[str, np.ndarray, int]:
        """``_format``; an asymmetric site is an :class:`IrnnError`: ``operation`` adds no zero point."""
        if site.role not in SYMMETRIC_ROLES:
            allowed = ", ".join(role for role in SYMMETRIC_ROLES if role not in WEIGHT_ROLES)
            raise IrnnError(
                f"{self._name(site)} has the role {site.role!r}, which is asymmetric: {operation} needs a site of one "
                f"of the roles {allowed}; requantize its result where 8 bits are wanted"
            )
        return self._format(site)

    _state_format = _format

    def _weight(
        self, module: WeightPart, role: str, floor: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, Tensor | str]:
        """(integers, scales, constant); a weight that two modules share is stored once."""
        key = module.key
        if key in self._weights:
            return self._weights[key]
        planes = module.code.encode(_numbers(module.where, module.weight), floor)
        if len(planes) != 1:
            raise IrnnError(f"{self._name(module)}: its weight code has {len(planes)} planes; a product takes one")
        (plane,) = planes
        self._weights[key] = (plane.integers, plane.scale, f"{self._names[module]}.{role}")
        return plane.integers, plane.scale, Tensor(plane.integers, plane.bits, plane.encoding)


def _floor_half(x: np.ndarray) -> np.ndarray:
    return np.floor(x + 0.5).astype(np.int64)


def _numbers(name: str, x: torch.Tensor) -> np.ndarray:
    """A parameter in float64 on the CPU; NaN or infinity is an :class:`IrnnError` that names it."""
    if problem := not_finite(name, x):
        raise IrnnError(f"{problem}; a program needs numbers: train again from intact weights")
    return x.detach().double().cpu().numpy()


def _factors(real: list[np.ndarray], where: str) -> dict[str, Tensor]:
    """Multiplier and shift of each term of a sum at ``where``."""
    tensors = {}
    for k, factor in enumerate(real):
        multiplier, shift = choose_multiplier(shorten(factor), where)
        tensors[f"multiplier_{k}"] = Tensor(multiplier, 32)
        tensors[f"shift_{k}"] = Tensor(shift.astype(np.int8), 8)
    return tensors


def _pwl_tensors(table: PwlTable) -> dict[str, Tensor]:
    knot_bits = 16  # the input's grid has at most 16 bits
    return {
        "knots": Tensor(table.knots.astype(np.int16), knot_bits),
        "slopes": Tensor(table.slopes.astype(np.int32), 32),
        "intercepts": Tensor(table.intercepts.astype(np.int32), 32),
    }
