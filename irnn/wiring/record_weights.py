"""Records what reads a matrix: products and look-ups in integers, each weight once."""

from __future__ import annotations

import numpy as np

from irnn.arithmetic import fixed_point, run_time_codes
from irnn.arithmetic.multipliers import choose_multiplier
from irnn.errors import IrnnError
from irnn.program import Tensor
from irnn.quant.codes.base import TABLE_HIGH
from irnn.wiring.constants import BIAS_LIMIT, Matrix, floor_half, numbers
from irnn.wiring.executor import Network
from irnn.wiring.parts import WeightPart
from irnn.wiring.record import Planes, Symbol, shorten
from irnn.wiring.record_sequences import SequenceRecorder


class WeightRecorder(SequenceRecorder):
    """Embedding and matrix product of every weight code."""

    def __init__(self, model: Network) -> None:
        super().__init__(model)
        self._matrices: dict[tuple[object, ...], Matrix] = {}
        self._biases: dict[tuple[WeightPart, int, bytes], str] = {}  # by module, plane and content -> the constant
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
        parts, biases = [], []
        for k, plane in enumerate(matrix.planes):
            acc_scale = x.scale * plane.scale
            correction = x.zero_point * plane.integers.sum(1, dtype=np.int64)
            bias_i64 = (floor_half(bias / acc_scale) if k == 0 else 0) - correction
            if np.abs(bias_i64).max() > fixed_point.INT32_MAX:
                raise IrnnError(f"the bias of {name} does not fit int32 at the scale of its accumulator")
            added = Tensor(bias_i64.astype(np.int32), 32)
            key = (module, k, added.data.tobytes())  # a module that multiplies twice has one bias where it is the same
            tensors = {"weight": self._constant(matrix, k), "bias": self._biases.get(key, added)}
            part = self._emit(
                "linear", (x,), f"{name}.plane_{k}" if k else name, "int32", (*x.shape[:-1], len(bias)),
                shorten(acc_scale), tensors=tensors,
            )  # fmt: skip
            self._biases.setdefault(key, f"{part.name}.bias")
            parts.append(part)
            biases.append(added.data)
        first = parts[0]
        if module.code.per_row and module.role == "logits_weight":
            return self._logits(matrix, x, parts, biases)
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
            scale = x.scale * 2.0**-run_time_codes.MULTIBIT_FRACTION_BITS
            name = f"{x.name}.codes"
            self._coded[key] = self._emit("multibit", (x,), name, "int16", x.shape, scale, 0, attributes)
        return self._coded[key]

    def _logits(self, matrix: Matrix, x: Symbol, parts: list[Symbol], biases: list[np.ndarray]) -> Symbol:
        """Rows brought to one scale, so that they can be compared: accumulators still, with 32 bits.

        The scale is that of x times the table's step, so that tied embedding and output layer share their factors.
        """
        largest = (
            run_time_codes.MULTIBIT_MAX if any(x is coded for coded in self._coded.values()) else -np.iinfo(x.dtype).min
        )
        reach = sum(
            np.abs(plane.integers.astype(np.int64)).sum(1) * largest * plane.scale
            + np.abs(bias.astype(np.int64)) * plane.scale
            for plane, bias in zip(matrix.planes, biases, strict=True)
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
