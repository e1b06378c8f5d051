"""Records the integer-only program: every constant that it needs is made here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from irnn.arithmetic import fixed_point
from irnn.arithmetic.multipliers import choose_multiplier
from irnn.errors import IrnnError
from irnn.program import Tensor
from irnn.program.windows import Window
from irnn.quant.codes.base import TABLE_HIGH
from irnn.quant.config import SYMMETRIC_ROLES, WEIGHT_ROLES
from irnn.quant.pwl import PwlTable
from irnn.quant.site import QuantSite
from irnn.wiring.constants import BIAS_LIMIT, Matrix, factors, floor_half, numbers, pwl_tensors
from irnn.wiring.executor import Network, check_ends, check_factor, need_undilated
from irnn.wiring.parts import ActivationPart, ExponentialPart, NormPart, WeightPart
from irnn.wiring.record import Planes, Symbol, added, shorten
from irnn.wiring.record_sequences import SequenceRecorder, strided

SIGMOID_FORMAT = (1 / 255, -128)  # scale and zero point of a sigmoid gate


class IntegerRecorder(SequenceRecorder):
    """Records integers only.  Requires every site's range (``irnn.qat.calibrate`` or training)."""

    kind = "integer"

    def __init__(self, model: Network) -> None:
        super().__init__(model)
        self._matrices: dict[tuple[object, ...], Matrix] = {}
        self._coded: dict[tuple[str, int], Symbol] = {}  # values in their run-time codes
        self._rowfactors: dict[bytes, str] = {}  # contents -> the names of their constants, without the role

    def embedding(self, module: WeightPart, ids: Symbol) -> Symbol:
        matrix = self._matrix(module, "table")
        name, size = self._name(module), matrix.planes[0].integers.shape[1]
        if module.code.per_row:
            tensors = self._constants(matrix, "table_") | self._endfactors(matrix, name)
            attributes = {"planes": len(matrix.planes), "low": -TABLE_HIGH, "high": TABLE_HIGH}
            step = np.array([matrix.step])
            return self._emit("scaled_embedding", (ids,), name, "int8", (size,), step, 0, attributes, tensors)
        (plane,) = matrix.planes
        reach = int(np.abs(plane.integers.astype(np.int64)).max())
        dtype = "int8" if reach <= TABLE_HIGH else "int16"
        tensors = {"table": self._constant(matrix, 0)}
        return self._emit("embedding", (ids,), name, dtype, (size,), plane.scale, tensors=tensors)

    def linear(self, module: WeightPart, x: Symbol) -> Symbol:
        """One product a plane, each with its part of the zero-point correction, the first with the bias as well."""
        x = self._operand(module, x)
        if len(x.scale) != 1:
            raise IrnnError(
                f"{self._name(module)} reads {x.name}, which has several scales; a matrix product needs one"
            )
        bias = np.zeros(module.weight.shape[0])
        if module.bias is not None:
            bias = numbers(f"the bias of {module.where}", module.bias)
        # A row's scale is never so small that its bias would leave +-2**30.
        floor = np.abs(bias) / (x.scale[0] * BIAS_LIMIT) if module.code.per_row else None
        matrix, name = self._matrix(module, "weight", floor), self._name(module)
        parts = []
        for k, plane in enumerate(matrix.planes):
            acc_scale = x.scale * plane.scale
            correction = x.zero_point * plane.integers.sum(1, dtype=np.int64)
            bias_i64 = (floor_half(bias / acc_scale) if k == 0 else 0) - correction
            if np.abs(bias_i64).max() > fixed_point.INT32_MAX:
                raise IrnnError(f"the bias of {name} does not fit int32 at the scale of its accumulator")
            tensors = {"weight": self._constant(matrix, k), "bias": Tensor(bias_i64.astype(np.int32), 32)}
            parts.append(
                self._emit(
                    "linear", (x,), f"{name}.plane_{k}" if k else name, "int32", (*x.shape[:-1], len(bias)),
                    shorten(acc_scale), tensors=tensors,
                )
            )  # fmt: skip
        first = parts[0]
        if module.code.per_row and module.role == "logits_weight":
            return self._logits(matrix, x, parts)
        if len(parts) == 1:
            return first
        return Planes(first.name, first.dtype, first.shape, first.scale, 0, first.axes, tuple(parts))

    def _operand(self, module: WeightPart, x: Symbol) -> Symbol:
        """x, or its codes at run time; two products of one value share them."""
        if module.operand_codes is None:
            return x
        key = (x.name, module.operand_codes)
        if key not in self._coded:
            attributes = {"zero_point": x.zero_point, "codes": module.operand_codes}
            scale = x.scale * 2.0**-fixed_point.MULTIBIT_FRACTION_BITS
            name = f"{x.name}.codes"
            self._coded[key] = self._emit("multibit", (x,), name, "int16", x.shape, scale, 0, attributes)
        return self._coded[key]

    def _logits(self, matrix: Matrix, x: Symbol, parts: list[Symbol]) -> Symbol:
        """Rows brought to one scale, so that they can be compared: accumulators still, with 32 bits.

        The scale is that of x times the table's step, so that tied embedding and output layer share their factors.
        """
        largest = (
            fixed_point.MULTIBIT_MAX if any(x is coded for coded in self._coded.values()) else -np.iinfo(x.dtype).min
        )
        reach = sum(
            np.abs(plane.integers.astype(np.int64)).sum(1) * largest * plane.scale
            + np.abs(self.tensors[f"{part.name}.bias"].data.astype(np.int64)) * plane.scale
            for plane, part in zip(matrix.planes, parts, strict=True)
        )
        name = f"{parts[0].name}.logits"
        if (reach / matrix.step).max() > fixed_point.INT32_MAX:
            raise IrnnError(f"{name}: the sum of its {len(parts)} planes does not fit int32; use fewer columns")
        attributes = {"zero_point": 0, "low": fixed_point.INT32_MIN, "high": fixed_point.INT32_MAX}
        tensors = self._endfactors(matrix, name)
        scale = x.scale * matrix.step
        return self._emit("requantize", tuple(parts), name, "int32", parts[0].shape, scale, 0, attributes, tensors)

    def _endfactors(self, matrix: Matrix, name: str) -> dict[str, Tensor | str]:
        """Each row's scale over the table's step, which embedding and output layer have in common where tied."""
        made: dict[str, Tensor | str] = {}
        for k, plane in enumerate(matrix.planes):
            multiplier, shift = choose_multiplier(plane.scale / matrix.step, name)
            # Tensors of the same numbers are there already where the other end has been recorded.
            content = multiplier.tobytes() + shift.tobytes()
            there = self._rowfactors.setdefault(content, f"{name}.%s_{k}")
            for role, tensor in (("multiplier", Tensor(multiplier, 32)), ("shift", Tensor(shift.astype(np.int8), 8))):
                shared = there % role
                made[f"{role}_{k}"] = shared if shared in self.tensors else tensor
        return made

    def requantize(self, site: QuantSite, *terms: Symbol) -> Symbol:
        return self._requantize(site, terms, *site.range())

    def relu(self, site: QuantSite, x: Symbol) -> Symbol:
        """Nothing below the integer of 0."""
        low, high = site.range()
        return self._requantize(site, (x,), max(low, self._format(site)[2]), high)

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

    def _matrix(self, module: WeightPart, role: str, floor: np.ndarray | None = None) -> Matrix:
        """The module's weight as integers; one that two modules share is quantized once, and stored once."""
        key = module.key
        if key not in self._matrices:
            planes = module.code.encode(numbers(module.where, module.weight), floor)
            total = sum(plane.integers * plane.scale[:, None] for plane in planes)
            name = self._names[module]
            if len(planes) == 1 and not (module.code.per_row and role == "table"):
                names: tuple[str, ...] = (f"{name}.{role}",)
            elif role == "table":
                names = tuple(f"{name}.table_{k}" for k in range(len(planes)))
            else:
                names = tuple(f"{name}.plane_{k}.weight" if k else f"{name}.weight" for k in range(len(planes)))
            self._matrices[key] = Matrix(planes, names, float(np.abs(total).max()))
        return self._matrices[key]

    def _constant(self, matrix: Matrix, k: int) -> Tensor | str:
        """Plane ``k`` as a constant, or the name of it where it is there already."""
        plane, name = matrix.planes[k], matrix.names[k]
        return name if name in self.tensors else Tensor(plane.integers, plane.bits, plane.encoding)

    def _constants(self, matrix: Matrix, role: str) -> dict[str, Tensor | str]:
        """All planes, under the role's name and their number."""
        return {f"{role}{k}": self._constant(matrix, k) for k in range(len(matrix.planes))}
