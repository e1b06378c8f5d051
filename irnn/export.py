"""Records a network's wiring as a program: ``convert`` the integer-only one, ``float_program`` its float baseline.

Both recorders are executors of the same wiring (``irnn.cells``, ``irnn.models``).  All constants are computed here, on
the CPU in float64: integer weights, biases, multipliers, shifts, tables.  Nothing downstream recomputes one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from irnn import fixed_point
from irnn.attention import EXP_STEP, Exponential
from irnn.convolution import Convolution
from irnn.errors import IrnnError
from irnn.layers import Activation, Embedding, Norm, Weight
from irnn.program import LENGTH_MAX, Node, Program, Scan, State, Tensor, Value
from irnn.program_set import ProgramSet
from irnn.pwl import PwlTable
from irnn.quantizers import BIAS_LIMIT, QuantSite, choose_multiplier, weight_scale


@dataclass(frozen=True)
class Symbol:
    """A value under construction: ``scale`` is ``[1]`` or one entry an element of the last axis, float64."""

    name: str
    dtype: str
    shape: tuple[int, ...]  # (): a scalar (token ids)
    scale: np.ndarray
    zero_point: int = 0
    axes: tuple[str, ...] = Value.axes

    @property
    def size(self) -> int:
        """Elements of the last axis."""
        return self.shape[-1]


def _floor_half(x: np.ndarray) -> np.ndarray:
    return np.floor(x + 0.5).astype(np.int64)


class Recorder:
    """What the two recorders share: names, constants, scans, shape operations."""

    kind: str

    def __init__(self, model: nn.Module) -> None:
        self._names = {module: readable_name(name) for name, module in model.named_modules()}
        self._taken: dict[str, int] = {}
        self._nodes: list[Node | Scan] = []
        self.values: dict[str, Value] = {}
        self.tensors: dict[str, Tensor] = {}
        self.inputs: dict[str, Value] = {}
        self.outputs: list[str] = []
        self.states: dict[str, State] = {}
        self._scope = ""
        self._lengths: Symbol | None = None

    def program(self) -> Program:
        """What has been recorded."""
        return Program(
            kind=self.kind,
            inputs=self.inputs,
            outputs=tuple(self.outputs),
            states=self.states,
            values=self.values,
            nodes=tuple(self._nodes),
            tensors=self.tensors,
        )

    def ids(self, name: str, count: int) -> Symbol:
        """Declare the program's input: token ids below ``count``."""
        symbol = self._declare(name, "int32", (), np.ones(1))
        self.inputs[name] = self.values[name] = Value("int32", (), low=0, high=count - 1)
        return symbol

    def lengths(self, name: str, axis: str) -> Symbol:
        """Declare an input that says how much of ``axis`` each sequence of the batch fills."""
        symbol = self._declare(name, "int32", (), np.ones(1), axes=())
        self.inputs[name] = self.values[name] = Value("int32", (), low=1, high=LENGTH_MAX, axes=(), counts=axis)
        return symbol

    def memory(self, name: str, site: QuantSite, size: int) -> Symbol:
        """Declare an input ``[batch, memory, size]`` in the site's format."""
        dtype, scale, zero_point = self._state_format(site)
        low, high = site.range() if self.kind == "integer" else (None, None)
        symbol = self._declare(name, dtype, (size,), scale, zero_point, axes=("memory",))
        value = replace(self.values[symbol.name], low=low, high=high)
        self.inputs[name] = self.values[symbol.name] = value
        return symbol

    def ragged(self, lengths: Symbol | None) -> None:
        """From here on sequences end at ``lengths``; None: at the end of the axis."""
        self._lengths = lengths

    def output(self, name: str, x: Symbol) -> None:
        """Declare ``x`` an output; ``name`` documents it."""
        self.outputs.append(x.name)

    def dropout(self, x: Symbol, p: float) -> Symbol:
        return x

    def split(self, x: Symbol, parts: int) -> tuple[Symbol, ...]:
        size = x.size // parts
        scales = np.broadcast_to(x.scale, (x.size,)).reshape(parts, size)
        return tuple(
            self._emit(
                "slice", (x,), f"{x.name}.{k}", x.dtype, (size,), _shorten(scales[k]), x.zero_point,
                {"start": k * size, "stop": (k + 1) * size},
            )
            for k in range(parts)
        )  # fmt: skip

    def concat(self, parts: list[Symbol]) -> Symbol:
        first = parts[0]
        if any(p.zero_point != first.zero_point or not np.array_equal(p.scale, first.scale) for p in parts):
            raise IrnnError(f"cannot concatenate {[p.name for p in parts]}: their scales differ; let them share a site")
        size = sum(p.size for p in parts)
        name = f"{self._scope}concat"
        return self._emit("concat", tuple(parts), name, first.dtype, (size,), first.scale, first.zero_point)

    def scan(
        self,
        step: Callable[..., tuple[Any, ...]],
        sequence: Symbol,
        states: list[tuple[str, int, QuantSite]],
        *,
        reverse: bool = False,
    ) -> Any:
        """Record ``step`` once, as the body of a loop over time."""
        outer, self._nodes = self._nodes, []
        x = self._copy(f"{sequence.name}[t]", sequence)
        before = [self._state(name, size, site, sequence.axes) for name, size, site in states]
        output, *after = step(self, x, *before)
        body, self._nodes = tuple(self._nodes), outer
        outputs = output if isinstance(output, tuple) else (output,)
        collected = tuple(self._copy(f"{y.name}[:]", y) for y in outputs)
        known = {x.name, *(b.name for b in before), *(node.output for node in body)}
        read = dict.fromkeys(name for node in body for name in node.inputs)
        pairs = zip(states, before, after, strict=True)
        self._nodes.append(
            Scan(
                sequences={x.name: sequence.name},
                states={name: (b.name, a.name) for (name, _, _), b, a in pairs},
                outputs={c.name: y.name for c, y in zip(collected, outputs, strict=True)},
                body=body,
                reverse=reverse,
                captures=tuple(name for name in read if name not in known),
                lengths=None if self._lengths is None else self._lengths.name,
            )
        )
        return collected if isinstance(output, tuple) else collected[0]

    def mask(self, x: Symbol) -> Symbol:
        return self._emit(
            "mask", (x, self._lengths), f"{x.name}.masked", x.dtype, x.shape, x.scale, x.zero_point,
            {"fill": x.zero_point},
        )  # fmt: skip

    def shorten(self, lengths: Symbol, factor: int) -> Symbol:
        axis = _divided(self.values[lengths.name].counts, factor)
        name = f"{lengths.name}/{factor}"
        symbol = self._emit("shorten", (lengths,), name, "int32", (), np.ones(1), 0, {"factor": factor}, axes=())
        self.values[symbol.name] = replace(self.values[symbol.name], counts=axis)
        return symbol

    def subsample(self, x: Symbol, factor: int) -> Symbol:
        axes = (_divided(x.axes[0], factor), *x.axes[1:])
        return self._emit(
            "subsample", (x,), f"{x.name}/{factor}", x.dtype, x.shape, x.scale, x.zero_point, {"factor": factor},
            axes=axes,
        )  # fmt: skip

    def convolution(self, module: Convolution, x: Symbol) -> Symbol:
        """im2col, then a matrix product with each band's neighbourhood."""
        stride_t, stride_f = module.strides
        bands = -(-x.size // module.channels // stride_f)
        columns = math.prod(module.kernel_size) * module.channels
        attributes = {
            "channels": module.channels, "kernel": list(module.kernel_size), "strides": list(module.strides),
            "fill": x.zero_point,
        }  # fmt: skip
        axes = (_divided(x.axes[0], stride_t), *x.axes[1:])
        patches = self._emit(
            "patches", (x,), f"{self._name(module)}.patches", x.dtype, (bands, columns), x.scale, x.zero_point,
            attributes, axes=axes,
        )  # fmt: skip
        return self.linear(module, patches)

    def flatten(self, x: Symbol) -> Symbol:
        shape = (*x.shape[:-2], x.shape[-2] * x.shape[-1])
        return self._emit("flatten", (x,), f"{x.name}.flat", x.dtype, shape, x.scale, x.zero_point)

    def linear(self, module: Weight, x: Symbol) -> Symbol:
        raise NotImplementedError

    def _state(self, name: str, size: int, site: QuantSite, axes: tuple[str, ...]) -> Symbol:
        dtype, scale, zero_point = self._state_format(site)
        self.states[name] = State(dtype, (size,), zero_point)
        return self._declare(f"{name}.before", dtype, (size,), scale, zero_point, axes)

    def _copy(self, name: str, x: Symbol) -> Symbol:
        return self._declare(name, x.dtype, x.shape, x.scale, x.zero_point, x.axes)

    def _state_format(self, site: QuantSite) -> tuple[str, np.ndarray, int]:
        raise NotImplementedError

    def _declare(
        self,
        name: str,
        dtype: str,
        shape: tuple[int, ...],
        scale: np.ndarray,
        zero_point: int = 0,
        axes: tuple[str, ...] = Value.axes,
    ) -> Symbol:
        self._taken[name] = self._taken.get(name, 0) + 1
        if self._taken[name] > 1:
            name = f"{name}~{self._taken[name]}"
        single = float(scale[0]) if len(scale) == 1 else None
        self.values[name] = Value(dtype, shape, single, zero_point, axes=axes)
        return Symbol(name, dtype, shape, scale, zero_point, axes)

    def _emit(
        self,
        op: str,
        inputs: tuple[Symbol, ...],
        name: str,
        dtype: str,
        shape: tuple[int, ...],
        scale: np.ndarray,
        zero_point: int = 0,
        attributes: dict[str, Any] | None = None,
        tensors: dict[str, Tensor | str] | None = None,
        axes: tuple[str, ...] | None = None,
    ) -> Symbol:
        symbol = self._declare(name, dtype, shape, scale, zero_point, inputs[0].axes if axes is None else axes)
        names = {}
        for role, tensor in (tensors or {}).items():
            if isinstance(tensor, str):  # a constant that is there already: a tied weight
                names[role] = tensor
            else:
                names[role] = f"{symbol.name}.{role}"
                self.tensors[names[role]] = tensor
        self._nodes.append(Node(op, tuple(s.name for s in inputs), symbol.name, attributes or {}, names))
        return symbol

    def _name(self, module: nn.Module) -> str:
        name = self._names[module]
        self._scope = name.rpartition(".")[0] + "." if "." in name else ""
        return name


class IntegerRecorder(Recorder):
    """Records integers only.  Requires every site's range (``irnn.qat.calibrate`` or training)."""

    kind = "integer"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._weights: dict[tuple[int, int], tuple[np.ndarray, np.ndarray, str]] = {}

    def features(self, name: str, site: QuantSite) -> Symbol:
        """Declare the program's input: integers of ``site``'s format."""
        scale, zero_point = site.qparams()
        low, high = site.range()
        symbol = self._declare(name, "int8", (site.size,), scale, int(zero_point[0]))
        self.inputs[name] = Value("int8", (site.size,), float(scale[0]), int(zero_point[0]), low, high)
        self.values[symbol.name] = self.inputs[name]
        return symbol

    def embedding(self, module: Embedding, ids: Symbol) -> Symbol:
        table, scale, tensor = self._weight(module, "table")
        return self._emit(
            "embedding", (ids,), self._name(module), "int8", (table.shape[1],), scale, tensors={"table": tensor}
        )

    def linear(self, module: Weight, x: Symbol) -> Symbol:
        if len(x.scale) != 1:
            raise IrnnError(
                f"{self._name(module)} reads {x.name}, which has several scales; a matrix product needs one"
            )
        bias = np.zeros(module.weight.shape[0])
        if module.bias is not None:
            bias = module.bias.detach().double().cpu().numpy()
        # A row's scale is never so small that its bias would leave +-2**30.
        floor = np.abs(bias) / (x.scale[0] * BIAS_LIMIT) if module.per_row else None
        weight, scale, tensor = self._weight(module, "weight", floor)
        acc_scale = x.scale * scale
        bias_i64 = _floor_half(bias / acc_scale) - x.zero_point * weight.sum(1, dtype=np.int64)
        if np.abs(bias_i64).max() > fixed_point.INT32_MAX:
            raise IrnnError(f"the bias of {self._name(module)} does not fit int32 at the scale of its accumulator")
        return self._emit(
            "linear", (x,), self._name(module), "int32", (*x.shape[:-1], len(weight)),
            _shorten(acc_scale),
            tensors={"weight": tensor, "bias": Tensor(bias_i64.astype(np.int32), 32)},
        )  # fmt: skip

    def requantize(self, site: QuantSite, *terms: Symbol) -> Symbol:
        return self._requantize(site, terms, site.range()[0])

    def relu(self, site: QuantSite, x: Symbol) -> Symbol:
        """Nothing below the integer of 0."""
        return self._requantize(site, (x,), max(site.range()[0], self._format(site)[2]))

    def _requantize(self, site: QuantSite, terms: tuple[Symbol, ...], low: int) -> Symbol:
        dtype, scale, zero_point = self._format(site)
        high = site.range()[1]
        tensors = _factors([term.scale / scale for term in terms])
        return self._emit(
            "requantize", terms, self._name(site), dtype, terms[0].shape, scale, zero_point,
            {"zero_point": zero_point, "low": low, "high": high}, tensors,
        )  # fmt: skip

    def accumulate(self, *terms: Symbol) -> Symbol:
        """Sum of accumulators as int32 at the coarsest of their scales, which loses nothing worth a bit."""
        scale = np.array([max(term.scale.max() for term in terms)])
        attributes = {"zero_point": 0, "low": fixed_point.INT32_MIN, "high": fixed_point.INT32_MAX}
        tensors = _factors([term.scale / scale for term in terms])
        name = f"{self._scope}accumulated"
        return self._emit("requantize", terms, name, "int32", terms[0].shape, scale, 0, attributes, tensors)

    def residual(self, site: QuantSite, a: Symbol, b: Symbol) -> Symbol:
        dtype, scale, zero_point = self._format(site)
        low, high = site.range()
        attributes = {
            "zero_points": [a.zero_point, b.zero_point], "zero_point": zero_point, "low": low, "high": high,
        }  # fmt: skip
        tensors = _factors([a.scale / scale, b.scale / scale])
        return self._emit("residual", (a, b), self._name(site), dtype, a.shape, scale, zero_point, attributes, tensors)

    def attention_weights(
        self, v: Weight, tanh: Activation, exponential: Exponential, query: Symbol, keys: Symbol, lengths: Symbol
    ) -> Symbol:
        table = self._table(tanh, query)
        low, high = tanh.site.range()
        _, scale, tensor = self._weight(v, "weight")
        multiplier, shift = choose_multiplier(scale * table.output_scale / EXP_STEP)
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
        multiplier, shift = choose_multiplier(values.scale / scale * 2.0**-fixed_point.ATTENTION_FRACTION_BITS)
        attributes = {
            "zero_point_values": values.zero_point, "zero_point": zero_point, "low": low, "high": high,
        }  # fmt: skip
        tensors = {"multiplier": Tensor(multiplier, 32), "shift": Tensor(shift.astype(np.int8), 8)}
        return self._emit(
            "attention_context", (weights, values), self._name(site), dtype, values.shape, scale, zero_point,
            attributes, tensors, axes=weights.axes[:1],
        )  # fmt: skip

    def add(self, site: QuantSite, a: Symbol, b: Symbol) -> Symbol:
        dtype, scale, zero_point = self._format(site)
        low, high = site.range()
        if not all(np.array_equal(np.broadcast_to(s.scale, scale.shape), scale) for s in (a, b)):
            raise IrnnError(f"cannot add {a.name} and {b.name}: both must live at the site {self._name(site)}")
        name = f"{self._name(site)}.sum"
        return self._emit("add", (a, b), name, dtype, a.shape, scale, zero_point, {"low": low, "high": high})

    def multiply(self, a: Symbol, b: Symbol) -> Symbol:
        attributes = {"zero_point_a": a.zero_point, "zero_point_b": b.zero_point}
        name = f"{self._scope}product"
        return self._emit("multiply", (a, b), name, "int32", a.shape, _shorten(a.scale * b.scale), 0, attributes)

    def norm(self, module: Norm, site: QuantSite, x: Symbol) -> Symbol:
        dtype, scale, zero_point = self._format(site)
        low, high = site.range()
        groups = module.groups
        gamma, beta = (p.detach().double().cpu().numpy().reshape(groups, -1) for p in (module.weight, module.bias))
        if gamma.shape[1] > fixed_point.NORM_LENGTH_MAX:
            raise IrnnError(f"{self._name(module)}: norms of up to {fixed_point.NORM_LENGTH_MAX} elements fit int64")
        fraction = 2.0**fixed_point.NORM_FRACTION_BITS
        step = np.maximum(np.abs(gamma).max(1) / 32767, np.abs(beta).max(1) * fraction / BIAS_LIMIT)
        step = np.where(step > 0, step, 1.0)[:, None]
        site_scale = scale.reshape(-1)[:: len(scale) // groups if len(scale) > 1 else 1]
        multiplier, shift = choose_multiplier(step[:, 0] / fraction / site_scale)
        tensors = {
            "gamma": Tensor(_floor_half(gamma / step).astype(np.int16).reshape(-1), 16),
            "beta": Tensor(_floor_half(beta * fraction / step).astype(np.int32).reshape(-1), 32),
            "multiplier": Tensor(multiplier, 32),
            "shift": Tensor(shift.astype(np.int8), 8),
        }
        attributes = {"groups": groups, "low": low, "high": high}
        op = f"{module.kind}_norm"
        return self._emit(op, (x,), self._name(module), dtype, x.shape, scale, zero_point, attributes, tensors)

    def activation(self, module: Activation, x: Symbol) -> Symbol:
        table = self._table(module, x)
        attributes = {
            "function": module.function, "shift": int(table.shift), "low": table.output_min, "high": table.output_max,
        }  # fmt: skip
        scale = np.array([table.output_scale])
        zero_point, tensors = table.output_zero_point, _pwl_tensors(table)
        return self._emit("pwl", (x,), self._name(module), "int8", x.shape, scale, zero_point, attributes, tensors)

    def _table(self, module: Activation, x: Symbol) -> PwlTable:
        table = module.table()
        if table.scale != x.scale[0] or len(x.scale) != 1:
            raise IrnnError(f"the table of {self._name(module)} was fitted for another scale than that of {x.name}")
        return table

    def _format(self, site: QuantSite) -> tuple[str, np.ndarray, int]:
        scale, zero_point = site.qparams()
        if site.groups > 1:
            scale = scale.repeat(site.size // site.groups)
        return ("int8" if site.bits <= 8 else "int16"), scale, int(zero_point[0])

    _state_format = _format

    def _weight(
        self, module: Weight, role: str, floor: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, Tensor | str]:
        """(integers, scales, constant); a weight that two modules share is stored once."""
        key = (module.key, module.bits)
        if key in self._weights:
            return self._weights[key]
        weight = module.weight.detach().double().cpu()
        scale = weight_scale(weight, module.bits, module.per_row).numpy()
        if floor is not None:
            scale = np.maximum(scale, floor[:, None])
        high = 2 ** (module.bits - 1) - 1
        integers = np.clip(_floor_half(weight.numpy() / scale), -high, high).astype(np.int8)
        self._weights[key] = (integers, scale[:, 0], f"{self._names[module]}.{role}")
        return integers, scale[:, 0], Tensor(integers, module.bits)


class FloatRecorder(Recorder):
    """Records the same network in float32: the baseline that the integer program is measured against."""

    kind = "float"
    ONE = np.ones(1)

    def features(self, name: str, site: QuantSite) -> Symbol:
        """Declare the program's input: float features."""
        symbol = self._declare(name, "float32", (site.size,), self.ONE)
        self.inputs[name] = self.values[symbol.name]
        return symbol

    def embedding(self, module: Embedding, ids: Symbol) -> Symbol:
        table = _float_tensor(module.weight)
        return self._float("embedding", (ids,), self._name(module), (table.data.shape[1],), {"table": table})

    def linear(self, module: Weight, x: Symbol) -> Symbol:
        rows = module.weight.shape[0]
        bias = module.bias if module.bias is not None else torch.zeros(rows)
        weight = _float_tensor(module.weight)
        # A tied weight is the embedding's table, under its name.
        shared = [name for name, tensor in self.tensors.items() if np.shares_memory(tensor.data, weight.data)]
        tensors = {"weight": shared[0] if shared else weight, "bias": _float_tensor(bias)}
        return self._float("linear", (x,), self._name(module), (*x.shape[:-1], rows), tensors)

    def requantize(self, site: QuantSite, *terms: Symbol) -> Symbol:
        x = terms[0]
        for term in terms[1:]:
            x = self._float("add", (x, term), self._name(site), x.shape)
        return x

    def add(self, site: QuantSite, a: Symbol, b: Symbol) -> Symbol:
        return self._float("add", (a, b), f"{self._name(site)}.sum", a.shape)

    def multiply(self, a: Symbol, b: Symbol) -> Symbol:
        return self._float("multiply", (a, b), f"{self._scope}product", a.shape)

    def accumulate(self, *terms: Symbol) -> Symbol:
        x = terms[0]
        for term in terms[1:]:
            x = self._float("add", (x, term), f"{self._scope}accumulated", x.shape)
        return x

    def residual(self, site: QuantSite, a: Symbol, b: Symbol) -> Symbol:
        return self._float("add", (a, b), self._name(site), a.shape)

    def relu(self, site: QuantSite, x: Symbol) -> Symbol:
        return self._float("relu", (x,), self._name(site), x.shape)

    def attention_weights(
        self, v: Weight, tanh: Activation, exponential: Exponential, query: Symbol, keys: Symbol, lengths: Symbol
    ) -> Symbol:
        tensors = {"weight": _float_tensor(v.weight)}
        axes = (*query.axes, *keys.axes)
        return self._float("attention_weights", (query, keys, lengths), f"{self._scope}weights", (), tensors, axes=axes)

    def attention_context(self, site: QuantSite, weights: Symbol, values: Symbol) -> Symbol:
        axes = weights.axes[:1]
        return self._float("attention_context", (weights, values), self._name(site), values.shape, axes=axes)

    def norm(self, module: Norm, site: QuantSite, x: Symbol) -> Symbol:
        tensors = {"gamma": _float_tensor(module.weight), "beta": _float_tensor(module.bias)}
        attributes = {"groups": module.groups, "epsilon": module.EPSILON}
        return self._float(f"{module.kind}_norm", (x,), self._name(module), x.shape, tensors, attributes)

    def activation(self, module: Activation, x: Symbol) -> Symbol:
        return self._float(module.function, (x,), self._name(module), x.shape)

    def _state_format(self, site: QuantSite) -> tuple[str, np.ndarray, int]:
        return "float32", self.ONE, 0

    def _float(
        self,
        op: str,
        inputs: tuple[Symbol, ...],
        name: str,
        shape: tuple[int, ...],
        tensors: dict[str, Tensor | str] | None = None,
        attributes: dict[str, Any] | None = None,
        axes: tuple[str, ...] | None = None,
    ) -> Symbol:
        return self._emit(op, inputs, name, "float32", shape, self.ONE, 0, attributes, tensors, axes)


def convert(model: nn.Module) -> Program | ProgramSet:
    """The integer-only program of a prepared and calibrated model, checked; of a model in parts a set of them.

    Weights, scales and tables are those of this moment.  In stage "all" a model in ``eval()`` computes with these very
    programs, so its accuracy is theirs.
    """
    programs = {name: convert_part(model, name) for name in model.program_wires()}
    return programs[""] if set(programs) == {""} else ProgramSet(programs)


def convert_part(model: nn.Module, part: str) -> Program:
    """One of the integer programs that :func:`convert` gives; a model of one program has the part ""."""
    program = _record(IntegerRecorder(model), model.program_wires()[part])
    program.check()
    return program


def float_program(model: nn.Module) -> Program | ProgramSet:
    """The same network in float32, with exact sigmoid and tanh and its norms as they stand."""
    programs = {name: _record(FloatRecorder(model), wire) for name, wire in model.program_wires().items()}
    return programs[""] if set(programs) == {""} else ProgramSet(programs)


def _record(recorder: Recorder, wire: Callable[[Recorder], None]) -> Program:
    with torch.no_grad():
        wire(recorder)
    return recorder.program()


def _factors(real: list[np.ndarray]) -> dict[str, Tensor]:
    """Multiplier and shift of each term of a sum."""
    tensors = {}
    for k, factor in enumerate(real):
        multiplier, shift = choose_multiplier(_shorten(factor))
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


def _divided(axis: str, factor: int) -> str:
    """Name of an axis of which every ``factor``-th step was kept: time, time/2, time/4."""
    name, _, before = axis.partition("/")
    total = factor * int(before or 1)
    return axis if factor == 1 else f"{name}/{total}"


def _float_tensor(parameter: torch.Tensor) -> Tensor:
    return Tensor(parameter.detach().cpu().numpy(), 32)


def _shorten(scale: np.ndarray) -> np.ndarray:
    """One entry where all are the same."""
    scale = np.atleast_1d(scale)
    return scale[:1] if np.all(scale == scale[0]) else scale


def readable_name(name: str) -> str:
    """Module path -> name in the program: ``lstm.layers.0.cells.forward_cell.w_x`` -> ``lstm.0.w_x``."""
    name = name.replace(".cells.forward_cell", "").replace(".cells.backward_cell", "_reverse")
    return name.replace("layers.", "").replace("gates.", "gate_")
