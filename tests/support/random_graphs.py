"""Random programs over all integer operations: whatever fits is joined, with every awkward size, range and encoding.

Unlike ``random_programs`` (LSTMs) the wiring itself is drawn.  A program reads features over time, narrow and wide
ones, token ids and a memory to attend to; a convolution may shorten the sequences first; operations are drawn over the
sequences, then in the body of a scan, then over what is left of them without the time axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from irnn.program import Node, Program, Scan, State, Tensor, Value
from irnn.program.encodings import ENCODINGS
from tests.support.random_programs import multiplier_and_shift

LIMITS = {"int8": (-128, 127), "int16": (-32768, 32767), "int32": (-(1 << 31), (1 << 31) - 1)}
SIZES = (1, 2, 3, 5, 8, 17)
BANDS, CHANNELS = 3, 2
MEMORY_SIZE = 4
WEIGHT_ENCODINGS = {"int8": 8, "int4": 4, "int3": 3, "int2": 2, "ternary": 2, "binary": 1, "codebook": 4}


def random_graph(seed: int, operations: int = 12) -> Program:
    """A program that ``check`` proves, with about three times ``operations`` nodes."""
    return _Builder(seed, operations).build()


def random_graph_inputs(program: Program, batch: int, steps: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs by name over their whole ranges; lengths from 1 to the number of steps, the longest among them."""
    rng = np.random.default_rng(seed)
    sizes = {"time": steps, "memory": 1 + steps // 2}
    inputs = {}
    for name, value in program.inputs.items():
        shape = (batch, *(sizes[axis] for axis in value.axes), *value.shape)
        high = value.high if value.counts is None else sizes[value.counts]
        inputs[name] = rng.integers(value.low, high, shape, endpoint=True).astype(value.dtype)
        inputs[name].reshape(-1)[0] = high
    return inputs


@dataclass
class _Level:
    """Where nodes are being written: what may be read there, and the axes of what is made there."""

    nodes: list = field(default_factory=list)
    pool: list[str] = field(default_factory=list)
    axes: tuple[str, ...] = ()


class _Builder:
    def __init__(self, seed: int, operations: int) -> None:
        self.rng = np.random.default_rng([seed, 77])
        self.operations = operations
        self.values: dict[str, Value] = {}
        self.tensors: dict[str, Tensor] = {}
        self.states: dict[str, State] = {}
        self.collected: tuple[str, ...] = ()  # the first sequence that the scan makes: the attention's, if there is one
        self.level = _Level()

    # the whole

    def build(self) -> Program:
        self.level = outer = _Level(axes=("time",))
        lengths = self.inputs()
        inputs = {name: self.values[name] for name in self.values}
        if self.chance(0.5):
            lengths = self.front(lengths)
        if outer.axes == ("time",):
            self.pick([self.embedding, self.scaled_embedding])("ids")
        self.draw(self.operations)
        if self.chance(0.6):
            self.mask(lengths)
        self.scan(lengths)
        over_time = list(outer.pool)
        self.draw(self.operations // 2)
        ends = self.ends(over_time, lengths)
        first = [name for name in outer.pool[:2] if name not in inputs]
        outputs = tuple(dict.fromkeys((*first, *self.collected, *outer.pool[-3:], *ends)))
        program = Program("integer", inputs, outputs, self.states, self.values, tuple(outer.nodes), self.tensors)
        program.check()
        return program

    def inputs(self) -> str:
        size = self.pick(SIZES)
        self.values["features"] = Value("int8", (BANDS * CHANNELS,), low=-128, high=127)
        self.values["wide"] = Value("int16", (size,), low=-2048, high=2047)
        self.values["ids"] = Value("int32", (), low=0, high=6)
        self.values["lengths"] = Value("int32", (), low=1, high=1000, axes=(), counts="time")
        self.values["keys"] = Value("int16", (MEMORY_SIZE,), low=-32768, high=32767, axes=("memory",))
        self.values["memory"] = Value("int8", (3,), low=-128, high=127, axes=("memory",))
        self.values["places"] = Value("int32", (), low=1, high=1000, axes=(), counts="memory")
        self.level.pool += ["features", "wide"]
        return "lengths"

    def front(self, lengths: str) -> str:
        """A convolution with strides; what it makes takes the place of all that is as long as the inputs."""
        stride = self.pick((1, 2))
        axes = ("time",) if stride == 1 else ("time/2",)
        kernel = [self.pick((1, 3, 3)), self.pick((1, 3, 3))]
        bands = -(-BANDS // 2)
        attributes = {"channels": CHANNELS, "kernel": kernel, "strides": [stride, 2], "fill": self.integer("int8")}
        rows = self.node("patches", ("features",), "int8", (bands, kernel[0] * kernel[1] * CHANNELS), attributes, axes)
        wide = self.node("subsample", ("wide",), "int16", self.values["wide"].shape, {"factor": stride}, axes)
        if stride > 1:
            lengths = self.node("shorten", (lengths,), "int32", (), {"factor": stride}, ())
        self.level.axes, self.level.pool = axes, [wide]
        image = self.requantize(self.linear(rows))
        self.level.pool = [wide]
        self.flatten(image)
        return lengths

    def scan(self, lengths: str) -> None:
        """A loop over some of the sequences, with an int8 and an int16 state, and attention to the memory."""
        outer, prefix = self.level, f"scan{len(self.values)}"
        sources = [self.of("int8", "int16"), self.of("int8", "int16")]
        self.level = body = _Level(axes=outer.axes)
        sequences = {}
        for k, source in enumerate(sources):
            inner = f"{prefix}.x{k}"
            self.values[inner] = self.values[source]
            sequences[inner] = source
        states = {f"{prefix}.h": ("int8", self.pick(SIZES)), f"{prefix}.c": ("int16", self.pick(SIZES))}
        before = {}
        for name, (dtype, size) in states.items():
            before[name] = f"{name}.before"
            self.values[before[name]] = Value(dtype, (size,))
            self.states[name] = State(dtype, (size,), self.integer(dtype))
        body.pool += [*sequences, *before.values()]
        self.draw(self.operations)
        captures = ("keys", "memory", "places") if self.chance(0.6) else ()
        context = [self.attention(*captures)] if captures else []
        pairs = {}
        for name, (dtype, size) in states.items():
            after = self.requantize(self.linear(self.of("int8"), rows=size), dtype=dtype)
            pairs[name] = (before[name], after)
        self.draw(2)
        outputs = {}
        made = [*context, *(after for _, after in pairs.values()), self.of("int8", "int16"), body.pool[-1]]
        for k, inner in enumerate(made):
            outputs[f"{prefix}.y{k}"] = inner
            self.values[f"{prefix}.y{k}"] = self.values[inner]
        self.level = outer
        masked = lengths if self.chance(0.6) else None
        outer.nodes.append(Scan(sequences, pairs, outputs, tuple(body.nodes), self.chance(0.4), captures, masked))
        outer.pool += outputs
        self.collected = tuple(outputs)[:1]

    def ends(self, over_time: list[str], lengths: str) -> tuple[str, ...]:
        """The last steps of two sequences, and what is made of them."""
        outer = self.level
        self.level = _Level(outer.nodes, [], ())
        for inputs in ((self.pick(over_time), lengths), (self.pick(over_time),)):
            source = self.values[inputs[0]]
            self.level.pool.append(self.node("last", inputs, source.dtype, source.shape, {}, ()))
        self.draw(self.operations // 3)
        return tuple(self.level.pool)

    def draw(self, count: int) -> None:
        """Operations at random on what there is."""
        makers: list[Callable] = [
            self.linear, self.requantize, self.residual, self.add, self.multiply, self.pwl, self.norm, self.slice,
            self.concat, self.complement, self.multibit,
        ]  # fmt: skip
        for _ in range(count):
            self.pick(makers)()

    # one operation each

    def linear(self, x: str | None = None, rows: int | None = None) -> str:
        x = x or self.of("int8", "int16")
        *outer, columns = self.values[x].shape
        rows = rows or self.pick(SIZES)
        encoding = self.pick(list(WEIGHT_ENCODINGS))
        weight = self.weight(encoding, rows, columns)
        bias = Tensor(self.rng.integers(-(1 << 20), 1 << 20, rows).astype(np.int32), 32)
        if self.chance(0.2):
            bias.data[0] = 1 << 30
        return self.node("linear", (x,), "int32", (*outer, rows), tensors={"weight": weight, "bias": bias})

    def embedding(self, ids: str) -> str:
        encoding = self.pick([name for name in WEIGHT_ENCODINGS if ENCODINGS[name].dtype == "int8"])
        table = self.weight(encoding, self.values[ids].high + 1, self.pick(SIZES))
        return self.node("embedding", (ids,), "int8", table.data.shape[1:], tensors={"table": table})

    def scaled_embedding(self, ids: str) -> str:
        """Of one to three planes; tables of a codebook that leaves int8 among them."""
        rows, size, tensors, planes = self.values[ids].high + 1, self.pick(SIZES), {}, self.pick([1, 2, 3])
        for k in range(planes):
            multiplier, shift = multiplier_and_shift(2.0 ** self.rng.uniform(-3, 7, rows))
            tensors[f"table_{k}"] = self.weight(self.pick(list(WEIGHT_ENCODINGS)), rows, size)
            tensors |= {f"multiplier_{k}": Tensor(multiplier, 32), f"shift_{k}": Tensor(shift.astype(np.int8), 8)}
        attributes = {"planes": planes, **self.limits("int8")}
        return self.node("scaled_embedding", (ids,), "int8", (size,), attributes, tensors=tensors)

    def requantize(self, x: str | None = None, dtype: str | None = None) -> str:
        x = x or self.of("int8", "int16", "int32")
        terms = [x, *(name for name in self.like(x, any_dtype=True)[:1] if self.chance(0.4))]
        return self.rescaled("requantize", terms, dtype or self.pick(["int8", "int16", "int16", "int32"]))

    def residual(self) -> str:
        x = self.of("int8", "int16")
        terms = [x, *(name for name in self.like(x)[:1])]
        zeros = {"zero_points": [self.integer("int8") for _ in terms]}
        return self.rescaled("residual", terms, self.pick(["int8", "int16"]), zeros)

    def rescaled(self, op: str, terms: list[str], dtype: str, attributes: dict | None = None) -> str:
        shape, tensors = self.values[terms[0]].shape, {}
        for k, term in enumerate(terms):
            reach = {"int8": 7, "int16": 15, "int32": 22}
            exponent = reach[dtype] - reach[self.values[term].dtype] + self.rng.uniform(-2, 2)
            count = self.pick([1, shape[-1]])
            multiplier, shift = multiplier_and_shift(2.0 ** (exponent + self.rng.uniform(-1, 1, count)))
            tensors |= {f"multiplier_{k}": Tensor(multiplier, 32), f"shift_{k}": Tensor(shift.astype(np.int8), 8)}
        attributes = (attributes or {}) | {"zero_point": self.integer("int8"), **self.limits(dtype)}
        return self.node(op, tuple(terms), dtype, shape, attributes, tensors=tensors)

    def add(self) -> str:
        x = self.of("int8", "int16")
        dtype = self.values[x].dtype
        other = self.pick([x, *(name for name in self.like(x) if self.values[name].dtype == dtype)])
        return self.node("add", (x, other), dtype, self.values[x].shape, self.limits(dtype))

    def multiply(self) -> str:
        x = self.of("int8")
        other = self.pick([x, *self.like(x)])
        attributes = {"zero_point_a": self.integer("int8"), "zero_point_b": self.integer("int8")}
        return self.node("multiply", (x, other), "int32", self.values[x].shape, attributes)

    def complement(self) -> str:
        x = self.of("int8")
        return self.node("complement", (x,), "int8", self.values[x].shape)

    def multibit(self) -> str:
        x = self.of("int8")
        attributes = {"zero_point": self.integer("int8"), "codes": self.pick([1, 2, 3, 4])}
        return self.node("multibit", (x,), "int16", self.values[x].shape, attributes)

    def pwl(self) -> str:
        x = self.of("int8", "int16")
        dtype, shift = self.pick(["int8", "int16"]), int(self.rng.integers(8, 24, endpoint=True))
        tensors = self.pieces(LIMITS[self.values[x].dtype], LIMITS[dtype], shift)
        attributes = {"function": "tanh", "shift": shift, **self.limits(dtype)}
        return self.node("pwl", (x,), dtype, self.values[x].shape, attributes, tensors=tensors)

    def norm(self) -> str:
        x = self.of("int8", "int16")
        size = self.values[x].shape[-1]
        groups = self.pick([g for g in (1, 2, 4) if size % g == 0])
        multiplier, shift = multiplier_and_shift(2.0 ** self.rng.uniform(-13, -10, groups))
        tensors = {
            "gamma": Tensor(self.rng.integers(-32767, 32767, size, endpoint=True).astype(np.int16), 16),
            "beta": Tensor(self.rng.integers(-(1 << 22), 1 << 22, size).astype(np.int32), 32),
            "multiplier": Tensor(multiplier, 32),
            "shift": Tensor(shift.astype(np.int8), 8),
        }
        op, attributes = self.pick(["mad_norm", "layer_norm"]), {"groups": groups, **self.limits("int16")}
        return self.node(op, (x,), "int16", self.values[x].shape, attributes, tensors=tensors)

    def slice(self) -> str:
        x = self.of("int8", "int16", "int32")
        size = self.values[x].shape[-1]
        start = int(self.rng.integers(0, size))
        stop = int(self.rng.integers(start + 1, size, endpoint=True))
        return self.node("slice", (x,), self.values[x].dtype, (stop - start,), {"start": start, "stop": stop})

    def concat(self) -> str:
        x = self.of("int8", "int16")
        dtype = self.values[x].dtype
        other = self.pick([name for name in self.level.pool if self.values[name].dtype == dtype])
        return self.node("concat", (x, other), dtype, (self.values[x].shape[-1] + self.values[other].shape[-1],))

    def mask(self, lengths: str) -> str:
        x = self.of("int8", "int16", "int32")
        dtype = self.values[x].dtype
        return self.node("mask", (x, lengths), dtype, self.values[x].shape, {"fill": self.integer("int8")})

    def flatten(self, x: str) -> str:
        bands, channels = self.values[x].shape
        return self.node("flatten", (x,), self.values[x].dtype, (bands * channels,))

    def attention(self, keys: str, memory: str, places: str) -> str:
        """Weights and context; the body goes on with the context."""
        query = self.requantize(self.linear(self.of("int8"), rows=MEMORY_SIZE), dtype="int16")
        shift = int(self.rng.integers(8, 24, endpoint=True))
        multiplier, score_shift = multiplier_and_shift(2.0 ** self.rng.uniform(-9, -4))
        table = np.sort(self.rng.integers(0, 65535, 256))[::-1].astype(np.uint16)
        table[0], table[-1] = 65535, 0
        tensors = {
            "weight": self.weight("int8", 1, MEMORY_SIZE),
            **self.pieces(LIMITS["int16"], LIMITS["int8"], shift),
            "table": Tensor(table, 16),
            "multiplier": Tensor(multiplier, 32),
            "shift": Tensor(score_shift.astype(np.int8), 8),
        }
        attributes = {"tanh_shift": shift, "tanh_low": -127, "tanh_high": 127, **self.limits("int16")}
        attributes |= {"low": -32768}
        axes = (*self.level.axes, "memory")
        inputs = (query, keys, places)
        weights = self.node("attention_weights", inputs, "uint16", (), attributes, axes, tensors=tensors)
        self.level.pool.remove(weights)
        multiplier, shift_8 = multiplier_and_shift(2.0 ** self.rng.uniform(-17, -15))
        factors = {"multiplier": Tensor(multiplier, 32), "shift": Tensor(shift_8.astype(np.int8), 8)}
        numbers = {"zero_point_values": self.integer("int8"), "zero_point": self.integer("int8")}
        attributes = numbers | self.limits("int8")
        shape = self.values[memory].shape
        return self.node("attention_context", (weights, memory), "int8", shape, attributes, tensors=factors)

    # parts

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
