"""Records the integer-only program: every constant that it needs is made here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from irnn.arithmetic import fixed_point
from irnn.arithmetic.multipliers import choose_multiplier
from irnn.errors import IrnnError
from irnn.program import Tensor
from irnn.program.windows import Window
from irnn.quant.config import SYMMETRIC_ROLES, WEIGHT_ROLES
from irnn.quant.pwl import PwlTable
from irnn.quant.site import QuantSite
from irnn.wiring.constants import AFFINE_GAIN, AFFINE_REACH, BIAS_LIMIT, factors, floor_half, numbers, pwl_tensors
from irnn.wiring.executor import check_ends, check_factor, need_undilated
from irnn.wiring.parts import ActivationPart, AffinePart, ExponentialPart, NormPart, ThresholdPart, WeightPart
from irnn.wiring.record import Planes, Symbol, added, shorten
from irnn.wiring.record_sequences import strided
from irnn.wiring.record_weights import WeightRecorder

SIGMOID_FORMAT = (1 / 255, -128)  # scale and zero point of a sigmoid gate


class IntegerRecorder(WeightRecorder):
    """Records integers only.  Requires every site's range (``irnn.qat.calibrate`` or training)."""

    kind = "integer"

    def requantize(self, site: QuantSite, *terms: Symbol) -> Symbol:
        return self._requantize(site, terms, *site.range())

    def relu(self, site: QuantSite, *terms: Symbol) -> Symbol:
        """Nothing below the integer of 0."""
        low, high = site.range()
        return self._requantize(site, terms, max(low, self._format(site)[2]), high)

    def mod_relu(self, module: ThresholdPart, site: QuantSite, x: Symbol) -> Symbol:
        dtype, scale, _ = self._symmetric_format(site, "modReLU")
        if not np.array_equal(shorten(x.scale), shorten(scale)) or x.zero_point:
            raise IrnnError(f"{self._name(module)} reads {x.name}, which does not live at {self._name(site)}")
        low, high = site.range()
        bias = np.clip(floor_half(numbers(f"the bias of {module.where}", module.bias) / scale), low, high)
        tensors = {"bias": Tensor(bias.astype(np.int32), 32)}
        attributes = {"low": low, "high": high}
        return self._emit("mod_relu", (x,), self._name(module), dtype, x.shape, scale, 0, attributes, tensors)

    def clamp(self, site: QuantSite, x: Symbol, low: float | None, high: float | None) -> Symbol:
        """The ends' integers: rounding is monotone, so that they clamp what their real numbers would."""
        check_ends(low, high)
        scale, zero_points = site.qparams()
        if site.groups > 1:
            raise IrnnError(f"{self._name(site)} has several scales: a clamp needs a site of one")
        lowest, highest = site.range()

        def integer(end: float | None, other: int) -> int:
            return other if end is None else int(np.clip(floor_half(end / scale + zero_points)[0], lowest, highest))

        return self._requantize(site, (x,), integer(low, lowest), integer(high, highest))

    def _requantize(self, site: QuantSite, terms: tuple[Symbol, ...], low: int, high: int) -> Symbol:
        terms = added(terms)
        if any(term.zero_point for term in terms):
            return self._residual(site, terms, low, high)
        self._need_one_time(self._name(site), terms)
        dtype, scale, zero_point = self._format(site)
        tensors = factors([term.scale / scale for term in terms], site.where)
        return self._emit(
            "requantize", terms, self._name(site), dtype, terms[0].shape, scale, zero_point,
            {"zero_point": zero_point, "low": low, "high": high}, tensors,
        )  # fmt: skip

    def residual(self, site: QuantSite, *terms: Symbol) -> Symbol:
        return self._residual(site, terms, *site.range())

    def subtract(self, site: QuantSite, a: Symbol, b: Symbol) -> Symbol:
        return self._residual(site, (a, b), *site.range(), op="subtract")

    def join(self, site: QuantSite, parts: list[Symbol]) -> Symbol:
        return self.concat([self._at(site, part) for part in parts])

    def _at(self, site: QuantSite, x: Symbol) -> Symbol:
        dtype, scale, zero_point = self._format(site)
        same = (x.dtype, x.zero_point) == (dtype, zero_point) and np.array_equal(x.scale, shorten(scale))
        return x if same else self.residual(site, x)

    def _residual(
        self, site: QuantSite, terms: tuple[Symbol, ...], low: int, high: int, op: str = "residual"
    ) -> Symbol:
        """The sum of quantized values; an accumulator among them is an :class:`IrnnError`."""
        self._need_one_time(self._name(site), terms)
        for term in terms:
            if term.dtype == "int32":
                raise IrnnError(
                    f"{self._name(site)} sums {[t.name for t in terms]}: {term.name} holds accumulators, which do not "
                    "add up with values that have a zero point; requantize it first, then take their residual sum"
                )
        dtype, scale, zero_point = self._format(site)
        attributes = {
            "zero_points": [term.zero_point for term in terms], "zero_point": zero_point, "low": low, "high": high,
        }  # fmt: skip
        tensors = factors([term.scale / scale for term in terms], site.where)
        name, shape = self._name(site), terms[0].shape
        return self._emit(op, terms, name, dtype, shape, scale, zero_point, attributes, tensors)

    def affine(self, module: AffinePart, x: Symbol) -> Symbol:
        """A scale an element, so that every gain keeps its 12 bits; the shift has them too."""
        if x.dtype == "int32":
            raise IrnnError(f"{self._name(module)} reads {x.name}, which holds accumulators: requantize them first")
        gain, shift = (numbers(f"the {part} of {module.where}", getattr(module, part)) for part in ("gain", "shift"))
        steps = gain * x.scale
        scale = np.maximum(np.abs(steps) / AFFINE_GAIN, np.abs(shift) / BIAS_LIMIT)
        # What is next to nothing beside the largest needs no bits of its own, and its factor would be none.
        scale = np.maximum(scale, scale.max() / AFFINE_REACH if scale.max() > 0 else 1.0)
        tensors = {
            "gain": Tensor(floor_half(steps / scale).astype(np.int16), 16),
            "bias": Tensor(floor_half(shift / scale).astype(np.int32), 32),
        }
        attributes = {"zero_point": x.zero_point}
        name = self._name(module)
        return self._emit("affine", (x,), name, "int32", x.shape, shorten(scale), 0, attributes, tensors)

    def scale(self, x: Symbol, factor: float) -> Symbol:
        """Nothing is computed: what reads it reads it at another scale."""
        check_factor(factor)
        scaled = replace(x, scale=x.scale * factor)
        if isinstance(scaled, Planes):
            scaled = replace(scaled, parts=tuple(self.scale(part, factor) for part in scaled.parts))
        return scaled

    def accumulate(self, *terms: Symbol) -> Symbol:
        """Sum of accumulators as int32 at the coarsest of their scales, which loses nothing worth a bit."""
        terms = added(terms)
        for term in terms:
            if term.zero_point:
                raise IrnnError(f"cannot accumulate {term.name}: it has the zero point {term.zero_point}; requantize")
        scale = np.array([max(term.scale.max() for term in terms)])
        attributes = {"zero_point": 0, "low": fixed_point.INT32_MIN, "high": fixed_point.INT32_MAX}
        name = f"{self._scope}accumulated"
        tensors = factors([term.scale / scale for term in terms], name)
        return self._emit("requantize", terms, name, "int32", terms[0].shape, scale, 0, attributes, tensors)

    def mean_pool(self, window: Window, channels: int, x: Symbol) -> Symbol:
        """The sum of the taps, at a scale that makes it their mean."""
        need_undilated(window)
        shape, count = (self._pooled(window, channels, x),), window.kernel[0] * window.kernel[1]
        attributes = {"channels": channels, **window.attributes(), "zero_point": x.zero_point}
        name = f"{x.name}.mean"
        return self._emit(
            "mean_pool", (x,), name, "int32", shape, x.scale / count, 0, attributes, axes=strided(x, window)
        )

    def time_mean(self, x: Symbol) -> Symbol:
        scale = x.scale * 2.0**-fixed_point.MEAN_FRACTION_BITS
        attributes = {"zero_point": x.zero_point}
        return self._emit(
            "time_mean", self._valid(x), f"{x.name}.mean", "int32", x.shape, scale, 0, attributes, axes=()
        )

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
        matrix = self._matrix(v, "weight")
        if len(matrix.planes) != 1:
            name, count = self._name(v), len(matrix.planes)
            raise IrnnError(
                f"{name}: its weight code has {count} planes; an attention's scores take one: give it a code of its "
                f"own (of.{name}=uniform:8)"
            )
        scale = matrix.planes[0].scale
        multiplier, shift = choose_multiplier(scale * table.output_scale / exponential.STEP, v.where)
        tensors = {
            "weight": self._constant(matrix, 0),
            **pwl_tensors(table),
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

    def softmax_mean(self, exponential: ExponentialPart, site: QuantSite, score: Symbol, values: Symbol) -> Symbol:
        self._need_one_time(self._name(site), (score, values))
        dtype, scale, zero_point = self._format(site)
        low, high = site.range()
        mean = values.scale / scale * 2.0**-fixed_point.ATTENTION_FRACTION_BITS
        tensors = {"table": Tensor(exponential.table(), 16)}
        for end, factor in (("", score.scale / exponential.STEP), ("_mean", mean)):
            multiplier, shift = choose_multiplier(factor, site.where)
            tensors[f"multiplier{end}"] = Tensor(multiplier, 32)
            tensors[f"shift{end}"] = Tensor(shift.astype(np.int8), 8)
        attributes = {
            "zero_point_values": values.zero_point, "zero_point": zero_point, "low": low, "high": high,
        }  # fmt: skip
        return self._emit(
            "softmax_mean", (score, *self._valid(values)), self._name(site), dtype, values.shape, scale, zero_point,
            attributes, tensors, axes=(),
        )  # fmt: skip

    def add(self, site: QuantSite, a: Symbol, b: Symbol) -> Symbol:
        dtype, scale, zero_point = self._symmetric_format(site, "a saturating sum")
        self._need_one_time(self._name(site), (a, b))
        low, high = site.range()
        if not all(np.array_equal(np.broadcast_to(s.scale, scale.shape), scale) for s in (a, b)):
            raise IrnnError(f"cannot add {a.name} and {b.name}: both must live at the site {self._name(site)}")
        name = f"{self._name(site)}.sum"
        return self._emit("add", (a, b), name, dtype, a.shape, scale, zero_point, {"low": low, "high": high})

    def multiply(self, a: Symbol, b: Symbol) -> Symbol:
        attributes = {"zero_point_a": a.zero_point, "zero_point_b": b.zero_point}
        name = f"{self._scope}product"
        self._need_one_time(name, (a, b))
        return self._emit("multiply", (a, b), name, "int32", a.shape, shorten(a.scale * b.scale), 0, attributes)

    def norm(self, module: NormPart, site: QuantSite, x: Symbol) -> Symbol:
        dtype, scale, zero_point = self._symmetric_format(site, "a norm")
        low, high = site.range()
        groups = module.groups
        gamma, beta = (
            numbers(f"the {part} of {module.where}", getattr(module, part)).reshape(groups, -1)
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
            "gamma": Tensor(floor_half(gamma / step).astype(np.int16).reshape(-1), 16),
            "beta": Tensor(floor_half(beta * fraction / step).astype(np.int32).reshape(-1), 32),
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
        zero_point, tensors = table.output_zero_point, pwl_tensors(table)
        return self._emit(
            "pwl",
            (x,),
            self._name(module),
            "int8" if table.output_max <= 127 else "int16",
            x.shape,
            scale,
            zero_point,
            attributes,
            tensors,
        )

    def complement(self, x: Symbol) -> Symbol:
        if (float(x.scale[0]), x.zero_point, len(x.scale)) != (*SIGMOID_FORMAT, 1):
            raise IrnnError(f"cannot take the complement of {x.name}: only a sigmoid's output has one (scale 1/255)")
        return super().complement(x)

    def minimum(self, a: Symbol, b: Symbol) -> Symbol:
        if "int32" in (a.dtype, b.dtype):
            raise IrnnError(f"cannot compare {a.name} and {b.name}: accumulators have no site; requantize them first")
        return super().minimum(a, b)

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
