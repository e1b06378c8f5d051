"""What random programs are drawn from: values, nodes, constants of every encoding, and the level that is written."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from irnn.program import Node, State, Tensor, Value
from tests.support.random_programs import multiplier_and_shift

LIMITS = {"int8": (-128, 127), "int16": (-32768, 32767), "int32": (-(1 << 31), (1 << 31) - 1)}
SIZES = (1, 2, 3, 5, 8, 17)
WEIGHT_ENCODINGS = {"int8": 8, "int4": 4, "int3": 3, "int2": 2, "ternary": 2, "binary": 1, "codebook": 4}


@dataclass
class Level:
    """Where nodes are being written: what may be read there, and the axes of what is made there."""

    nodes: list = field(default_factory=list)
    pool: list[str] = field(default_factory=list)
    axes: tuple[str, ...] = ()


class Builder:
    """A program under construction."""

    def __init__(self, seed: int, operations: int) -> None:
        self.rng = np.random.default_rng([seed, 77])
        self.operations = operations
        self.values: dict[str, Value] = {}
        self.tensors: dict[str, Tensor] = {}
        self.states: dict[str, State] = {}
        self.collected: tuple[str, ...] = ()  # the first sequence that the scan makes: the attention's, if there is one
        self.level = Level()

    def rescaled(self, op: str, terms: list[str], dtype: str, attributes: dict | None = None) -> str:
        shape, tensors = self.values[terms[0]].shape, {}
        for k, term in enumerate(terms):
            reach = {"int8": 7, "int16": 15, "int32": 22}
            exponent = reach[dtype] - reach[self.values[term].dtype] + self.rng.uniform(-2, 2)
            count = self.pick([1, shape[-1]])
            exponents = exponent + self.rng.uniform(-1, 1, count)
            if self.chance(0.3):  # powers of two give ties
                exponents = np.round(exponents) - 1
            multiplier, shift = multiplier_and_shift(2.0**exponents)
            tensors |= {f"multiplier_{k}": Tensor(multiplier, 32), f"shift_{k}": Tensor(shift.astype(np.int8), 8)}
        attributes = (attributes or {}) | {"zero_point": self.integer("int8"), **self.limits(dtype)}
        return self.node(op, tuple(terms), dtype, shape, attributes, tensors=tensors)

    def node(
        self,
        op: str,
        inputs: tuple[str, ...],
        dtype: str,
        shape: tuple[int, ...],
        attributes: dict | None = None,
        axes: tuple[str, ...] | None = None,
        tensors: dict[str, Tensor] | None = None,
    ) -> str:
        name = f"v{len(self.values)}.{op}"
        self.values[name] = Value(dtype, shape, axes=self.level.axes if axes is None else axes)
        roles = {role: f"{name}.{role}" for role in tensors or {}}
        self.tensors |= {roles[role]: tensor for role, tensor in (tensors or {}).items()}
        self.level.nodes.append(Node(op, inputs, name, attributes or {}, roles))
        self.level.pool.append(name)
        return name

    def weight(self, encoding: str, rows: int, columns: int) -> Tensor:
        bits, shape = WEIGHT_ENCODINGS[encoding], (rows, columns)
        if encoding == "codebook":
            signed = self.pick([1, 2, 4, 8, 16, 32, 64, 128]) * self.rng.choice([-1, 1], shape)
            return Tensor(signed.astype(np.int16), bits, encoding)
        if encoding == "binary":
            return Tensor(self.rng.choice([-1, 1], shape).astype(np.int8), bits, encoding)
        high = 2 ** (bits - 1) - 1
        return Tensor(self.rng.integers(-high, high, shape, endpoint=True).astype(np.int8), bits, encoding)

    def pieces(self, domain: tuple[int, int], image: tuple[int, int], shift: int) -> dict[str, Tensor]:
        """Straight pieces that jump, some of them steep, the first of which starts at the lowest input."""
        count = int(self.rng.integers(1, 9))
        inner = self.rng.choice(np.arange(domain[0] + 1, domain[1]), count - 1, replace=False)
        knots = np.sort(np.append(inner, domain[0]))
        slope = (image[1] - image[0]) / (domain[1] - domain[0]) * 2.0**shift
        slopes = np.clip(self.rng.uniform(-2, 4, count) * slope, -(1 << 30), 1 << 30)
        limit = min(1 << 30, 2 * image[1] << shift)
        arrays = {"knots": knots, "slopes": slopes, "intercepts": self.rng.integers(-limit, limit, count)}
        return {role: Tensor(np.asarray(a).astype(np.int32), 32) for role, a in arrays.items()}

    def limits(self, dtype: str) -> dict[str, int]:
        """The whole range of the dtype, or a narrow one."""
        low, high = LIMITS[dtype]
        if dtype != "int32" and self.chance(0.3):
            low, high = low // 4, high // 4
        return {"low": low, "high": high}

    def of(self, *dtypes: str) -> str:
        """A value of one of these dtypes; where there is none, one is made."""
        found = [name for name in self.level.pool if self.values[name].dtype in dtypes]
        if found:
            return self.pick(found[-8:])
        source = next(name for name in self.level.pool if self.values[name].dtype in LIMITS)
        return self.rescaled("requantize", [source], dtypes[0])

    def like(self, x: str, *, any_dtype: bool = False) -> list[str]:
        """Other values of the same shape, int8 or int16."""
        dtypes = ("int8", "int16", "int32") if any_dtype else ("int8", "int16")
        shape = self.values[x].shape
        names = [n for n in self.level.pool if n != x and self.values[n].shape == shape]
        return [n for n in names if self.values[n].dtype in dtypes]

    def integer(self, dtype: str) -> int:
        return int(self.rng.integers(*LIMITS[dtype], endpoint=True))

    def pick(self, options: list | tuple):
        return options[int(self.rng.integers(len(options)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)
