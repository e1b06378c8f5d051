"""Records a network's wiring as a program: ``convert`` the integer-only one, ``float_program`` its float baseline.

Both recorders are executors of the same wiring (``irnn.cells``, ``irnn.models``).  All constants are computed here, on
the CPU in float64: integer weights, biases, multipliers, shifts, tables.  Nothing downstream recomputes one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from irnn import fixed_point
from irnn.errors import IrnnError
from irnn.layers import Activation, Embedding, Linear, Norm, Weight
from irnn.program import Node, Program, Scan, State, Tensor, Value
from irnn.quantizers import BIAS_LIMIT, QuantSite, choose_multiplier, weight_scale


@dataclass(frozen=True)
class Symbol:
    """A value under construction: ``scale`` is ``[1]`` or one entry an element, float64."""

    name: str
    dtype: str
    size: int | None  # None: a scalar (token ids)
    scale: np.ndarray
    zero_point: int = 0


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
        symbol = self._declare(name, "int32", None, np.ones(1))
        self.inputs[name] = self.values[name] = Value("int32", (), low=0, high=count - 1)
        return symbol

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
                "slice", (x,), f"{x.name}.{k}", x.dtype, size, _shorten(scales[k]), x.zero_point,
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
        return self._emit("concat", tuple(parts), name, first.dtype, size, first.scale, first.zero_point)

    def scan(
        self,
        step: Callable[..., tuple[Any, ...]],
        sequence: Symbol,
        states: list[tuple[str, int, QuantSite]],
        *,
        reverse: bool = False,
    ) -> Symbol:
        """Record ``step`` once, as the body of a loop over time."""
        outer, self._nodes = self._nodes, []
        x = self._declare(f"{sequence.name}[t]", sequence.dtype, sequence.size, sequence.scale, sequence.zero_point)
        before = [self._state(name, size, site) for name, size, site in states]
        output, *after = step(self, x, *before)
        body, self._nodes = tuple(self._nodes), outer
        y = self._declare(f"{output.name}[:]", output.dtype, output.size, output.scale, output.zero_point)
        pairs = zip(states, before, after, strict=True)
        self._nodes.append(
            Scan(
                sequences={x.name: sequence.name},
                states={name: (b.name, a.name) for (name, _, _), b, a in pairs},
                outputs={y.name: output.name},
                body=body,
                reverse=reverse,
            )
        )
        return y

    def _state(self, name: str, size: int, site: QuantSite) -> Symbol:
        dtype, scale, zero_point = self._state_format(site)
        self.states[name] = State(dtype, (size,), zero_point)
        return self._declare(f"{name}.before", dtype, size, scale, zero_point)

    def _state_format(self, site: QuantSite) -> tuple[str, np.ndarray, int]:
        raise NotImplementedError

    def _declare(self, name: str, dtype: str, size: int | None, scale: np.ndarray, zero_point: int = 0) -> Symbol:
        self._taken[name] = self._taken.get(name, 0) + 1
        if self._taken[name] > 1:
            name = f"{name}~{self._taken[name]}"
        single = float(scale[0]) if len(scale) == 1 else None
        self.values[name] = Value(dtype, () if size is None else (size,), single, zero_point)
        return Symbol(name, dtype, size, scale, zero_point)

    def _emit(
        self,
        op: str,
        inputs: tuple[Symbol, ...],
        name: str,
        dtype: str,
        size: int,
        scale: np.ndarray,
        zero_point: int = 0,
        attributes: dict[str, Any] | None = None,
        tensors: dict[str, Tensor | str] | None = None,
    ) -> Symbol:
        symbol = self._declare(name, dtype, size, scale, zero_point)
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
        symbol = self._declare(name, "int8", site.size, scale, int(zero_point[0]))
        self.inputs[name] = Value("int8", (site.size,), float(scale[0]), int(zero_point[0]), low, high)
        self.values[symbol.name] = self.inputs[name]
        return symbol

    def embedding(self, module: Embedding, ids: Symbol) -> Symbol:
        table, scale, tensor = self._weight(module, "table")
        return self._emit(
            "embedding", (ids,), self._name(module), "int8", table.shape[1], scale, tensors={"table": tensor}
        )

    def linear(self, module: Linear, x: Symbol) -> Symbol:
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
            "linear", (x,), self._name(module), "int32", len(weight), _shorten(acc_scale),
            tensors={"weight": tensor, "bias": Tensor(bias_i64.astype(np.int32), 32)},
        )  # fmt: skip

    def requantize(self, site: QuantSite, *terms: Symbol) -> Symbol:
        dtype, scale, zero_point = self._format(site)
        low, high = site.range()
        tensors = {}
        for k, term in enumerate(terms):
            multiplier, shift = choose_multiplier(_shorten(term.scale / scale))
            tensors[f"multiplier_{k}"] = Tensor(multiplier, 32)
            tensors[f"shift_{k}"] = Tensor(shift.astype(np.int8), 8)
        return self._emit(
            "requantize", terms, self._name(site), dtype, terms[0].size, scale, zero_point,
            {"zero_point": zero_point, "low": low, "high": high}, tensors,
        )  # fmt: skip

    def add(self, site: QuantSite, a: Symbol, b: Symbol) -> Symbol:
        dtype, scale, zero_point = self._format(site)
        low, high = site.range()
        if not all(np.array_equal(np.broadcast_to(s.scale, scale.shape), scale) for s in (a, b)):
            raise IrnnError(f"cannot add {a.name} and {b.name}: both must live at the site {self._name(site)}")
        name = f"{self._name(site)}.sum"
        return self._emit("add", (a, b), name, dtype, a.size, scale, zero_point, {"low": low, "high": high})

    def multiply(self, a: Symbol, b: Symbol) -> Symbol:
        attributes = {"zero_point_a": a.zero_point, "zero_point_b": b.zero_point}
        name = f"{self._scope}product"
        return self._emit("multiply", (a, b), name, "int32", a.size, _shorten(a.scale * b.scale), 0, attributes)

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
        return self._emit(op, (x,), self._name(module), dtype, x.size, scale, zero_point, attributes, tensors)

    def activation(self, module: Activation, x: Symbol) -> Symbol:
        table = module.table()
        if table.scale != x.scale[0] or len(x.scale) != 1:
            raise IrnnError(f"the table of {self._name(module)} was fitted for another scale than that of {x.name}")
        attributes = {
            "function": module.function, "shift": int(table.shift), "low": table.output_min, "high": table.output_max,
        }  # fmt: skip
        knot_bits = 16  # the input's grid has at most 16 bits
        tensors = {
            "knots": Tensor(table.knots.astype(np.int16), knot_bits),
            "slopes": Tensor(table.slopes.astype(np.int32), 32),
            "intercepts": Tensor(table.intercepts.astype(np.int32), 32),
        }
        scale = np.array([table.output_scale])
        zero_point = table.output_zero_point
        return self._emit("pwl", (x,), self._name(module), "int8", x.size, scale, zero_point, attributes, tensors)

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
        key = (id(module.weight), module.bits)
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
        symbol = self._declare(name, "float32", site.size, self.ONE)
        self.inputs[name] = self.values[symbol.name]
        return symbol

    def embedding(self, module: Embedding, ids: Symbol) -> Symbol:
        table = _float_tensor(module.weight)
        return self._float("embedding", (ids,), self._name(module), table.data.shape[1], {"table": table})

    def linear(self, module: Linear, x: Symbol) -> Symbol:
        rows = module.weight.shape[0]
        bias = module.bias if module.bias is not None else torch.zeros(rows)
        weight = _float_tensor(module.weight)
        # A tied weight is the embedding's table, under its name.
        shared = [name for name, tensor in self.tensors.items() if np.shares_memory(tensor.data, weight.data)]
        tensors = {"weight": shared[0] if shared else weight, "bias": _float_tensor(bias)}
        return self._float("linear", (x,), self._name(module), rows, tensors)

    def requantize(self, site: QuantSite, *terms: Symbol) -> Symbol:
        x = terms[0]
        for term in terms[1:]:
            x = self._float("add", (x, term), self._name(site), x.size)
        return x

    def add(self, site: QuantSite, a: Symbol, b: Symbol) -> Symbol:
        return self._float("add", (a, b), f"{self._name(site)}.sum", a.size)

    def multiply(self, a: Symbol, b: Symbol) -> Symbol:
        return self._float("multiply", (a, b), f"{self._scope}product", a.size)

    def norm(self, module: Norm, site: QuantSite, x: Symbol) -> Symbol:
        tensors = {"gamma": _float_tensor(module.weight), "beta": _float_tensor(module.bias)}
        attributes = {"groups": module.groups, "epsilon": module.EPSILON}
        return self._float(f"{module.kind}_norm", (x,), self._name(module), x.size, tensors, attributes)

    def activation(self, module: Activation, x: Symbol) -> Symbol:
        return self._float(module.function, (x,), self._name(module), x.size)

    def _state_format(self, site: QuantSite) -> tuple[str, np.ndarray, int]:
        return "float32", self.ONE, 0

    def _float(
        self,
        op: str,
        inputs: tuple[Symbol, ...],
        name: str,
        size: int,
        tensors: dict[str, Tensor | str] | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> Symbol:
        return self._emit(op, inputs, name, "float32", size, self.ONE, 0, attributes, tensors)


def convert(model: nn.Module) -> Program:
    """The integer-only program of a prepared and calibrated model, checked.

    Weights, scales and tables are those of this moment.  In stage "all" a model in ``eval()`` computes with this very
    program, so its accuracy is the program's.
    """
    recorder = IntegerRecorder(model)
    with torch.no_grad():
        model.program_wire(recorder)
    program = recorder.program()
    program.check()
    return program


def float_program(model: nn.Module) -> Program:
    """The same network in float32, with exact sigmoid and tanh and its norms as they stand."""
    recorder = FloatRecorder(model)
    with torch.no_grad():
        model.program_wire(recorder)
    return recorder.program()


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
