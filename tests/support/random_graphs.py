"""Random programs over all integer operations: whatever fits is joined, with every awkward size, range and encoding.

Unlike ``random_programs`` (LSTMs) the wiring itself is drawn.  A program reads features over time, narrow and wide
ones, token ids and a memory to attend to; a convolution may shorten the sequences first; operations are drawn over the
sequences, then in the body of a scan, then over what is left of them without the time axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from irnn.program import Program, Scan, State, Tensor, Value
from irnn.program.axes import Axis
from irnn.program.encodings import ENCODINGS
from tests.support.random_parts import LIMITS, SIZES, WEIGHT_ENCODINGS, Builder, Level
from tests.support.random_programs import multiplier_and_shift
from tests.support.random_windows import only_time, random_window

BANDS, CHANNELS = 3, 2
MEMORY_SIZE = 4


def random_graph(seed: int, operations: int = 12) -> Program:
    """A program that ``check`` proves, with about three times ``operations`` nodes."""
    return _Builder(seed, operations).build()


def random_graph_inputs(program: Program, batch: int, steps: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs by name over their whole ranges; lengths from 1 to the number of steps, the longest among them.

    Where the program needs more steps than ``steps`` there are so many.
    """
    rng = np.random.default_rng(seed)
    sizes = {"time": max(steps, program.fewest.get("time", 1)), "memory": 1 + steps // 2}
    inputs = {}
    for name, value in program.inputs.items():
        shape = (batch, *(sizes[axis] for axis in value.axes), *value.shape)
        high = value.high if value.counts is None else sizes[value.counts]
        inputs[name] = rng.integers(value.low, high, shape, endpoint=True).astype(value.dtype)
        inputs[name].reshape(-1)[0] = high
    return inputs


class _Builder(Builder):
    # the whole

    def build(self) -> Program:
        self.level = outer = Level(axes=("time",))
        lengths = self.inputs()
        names = list(self.values)
        if self.chance(0.6):
            lengths = self.front(lengths)
        inputs = {name: self.values[name] for name in names}
        if outer.axes == ("time",):
            self.pick([self.embedding, self.scaled_embedding])("ids")
        self.draw(self.operations)
        if self.chance(0.6):
            self.mask(lengths)
        if self.chance(0.7):
            self.over_time("repeat", self.value(lengths), outer.pool[0])
        finals = self.scan(lengths)
        over_time = list(outer.pool)
        self.draw(self.operations // 2)
        ends = self.ends(over_time, lengths, finals)
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
        self.values["value"] = Value("int8", (size,), low=-128, high=127, axes=())
        self.values["lengths"] = Value("int32", (), low=1, high=1000, axes=(), counts="time")
        self.values["keys"] = Value("int16", (MEMORY_SIZE,), low=-32768, high=32767, axes=("memory",))
        self.values["memory"] = Value("int8", (3,), low=-128, high=127, axes=("memory",))
        self.values["places"] = Value("int32", (), low=1, high=1000, axes=(), counts="memory")
        self.level.pool += ["features", "wide"]
        return "lengths"

    def front(self, lengths: str) -> str:
        """A convolution and poolings; what they make takes the place of all that is as long as the inputs."""
        window, wide = random_window(self.rng, BANDS), self.values["wide"]
        axes = (Axis("time").after(window.offset(0), window.strides[0]).name,)
        offset = {} if axes[0] in ("time", "time/2") else {"offset": window.offset(0)}
        said = {"channels": CHANNELS, **window.attributes(), "fill": self.integer("int8")}
        bands = window.places(1, BANDS)
        columns = window.kernel[0] * window.kernel[1] * CHANNELS
        rows = self.node("patches", ("features",), "int8", (bands, columns), said, axes)
        # Along time the same window.
        flat = {"channels": wide.shape[0], **only_time(window).attributes()}
        if offset or self.chance(0.5):
            narrow = self.node("max_pool", ("wide",), "int16", wide.shape, flat, axes)
        else:
            narrow = self.node("subsample", ("wide",), "int16", wide.shape, {"factor": window.strides[0]}, axes)
        said = {"channels": CHANNELS, **window.attributes(), "zero_point": self.integer("int8")}
        mean = self.node("mean_pool", ("features",), "int32", (bands * CHANNELS,), said, axes)
        if axes != ("time",):
            self.values["lengths"] = replace(self.values["lengths"], low=max(1, Axis.parse(axes[0]).root_for(1)))
            lengths = self.node("shorten", (lengths,), "int32", (), {"factor": window.strides[0], **offset}, ())
        self.level.axes, self.level.pool = axes, [narrow]
        image = self.requantize(self.linear(rows))
        self.level.pool = [narrow, mean]
        self.flatten(image)
        return lengths

    def value(self, lengths: str) -> str:
        """What is made of the input without time, and of a sequence's mean."""
        outer = self.level
        source = self.of("int8", "int16")
        self.level = Level(outer.nodes, ["value"], ())
        self.reduced("time_mean", source, lengths)
        self.draw(3)
        made = self.of("int8", "int16")
        self.level = outer
        return made

    def over_time(self, op: str, *inputs: str) -> str:
        """``repeat``: the form of the first input, the axes of the second."""
        value = self.values[inputs[0]]
        return self.node(op, inputs, value.dtype, value.shape)

    def scan(self, lengths: str) -> list[str]:
        """A loop over some of the sequences, with an int8 and an int16 state, and attention to the memory.

        Some states start from a value; the last ones of both are values again.
        """
        outer, prefix = self.level, f"scan{len(self.values)}"
        sources = [self.of("int8", "int16"), self.of("int8", "int16")]
        self.level = body = Level(axes=outer.axes)
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
        self.level = Level(outer.nodes, ["value"], ())
        starts = {
            name: self.requantize(self.linear(self.of("int8"), rows=size), dtype=dtype)
            for name, (dtype, size) in states.items()
            if self.chance(0.4)
        }
        self.level = outer
        for name in starts:
            del self.states[name]
        finals = {f"{name}.final": name for name in states}
        self.values |= {final: Value(*states[name][:1], (states[name][1],), axes=()) for final, name in finals.items()}
        masked = lengths if self.chance(0.6) else None
        parts = (tuple(body.nodes), self.chance(0.4), captures, masked, starts, finals)
        outer.nodes.append(Scan(sequences, pairs, outputs, *parts))
        outer.pool += outputs
        self.collected = tuple(outputs)[:1]
        return list(finals)

    def ends(self, over_time: list[str], lengths: str, finals: list[str]) -> tuple[str, ...]:
        """The last steps of two sequences, another step, their mean and maximum, and what is made of them."""
        outer = self.level
        self.level = Level(outer.nodes, list(finals), ())
        for inputs in ((self.pick(over_time), lengths), (self.pick(over_time),)):
            source = self.values[inputs[0]]
            self.node("last", inputs, source.dtype, source.shape, {}, ())
        source = self.pick(over_time)
        form = self.values[source]
        self.node("step", (source,), form.dtype, form.shape, {"index": self.pick([0, 1, -1, -2])}, ())
        self.level.pool = self.level.pool[: len(finals) + 3]
        for op, dtypes in (("time_mean", ("int8", "int16")), ("time_max", ("int8", "int16", "int32"))):
            self.reduced(op, self.pick([name for name in over_time if self.values[name].dtype in dtypes]), lengths)
        self.draw(self.operations // 3)
        self.softmax_mean([name for name in over_time if len(self.values[name].shape) == 1], lengths)
        return tuple(dict.fromkeys(self.level.pool))

    def softmax_mean(self, over_time: list[str], lengths: str) -> None:
        """Attention pooling, where there are scores of 16 bits beside values of 8."""
        alike = [name for name in over_time if self.values[name].axes == self.values[over_time[0]].axes]
        scores, values = ([n for n in alike if self.values[n].dtype == dtype] for dtype in ("int16", "int8"))
        if not scores or not values:
            return
        score, x, level = self.pick(scores), self.pick(values), self.level
        self.level = Level(level.nodes, [], self.values[x].axes)
        one = self.node("slice", (score,), "int16", (1,), {"start": 0, "stop": 1})
        self.level = level
        tensors = {"table": self.exponential()}
        for end, ends in (("", (-9, 0)), ("_mean", (-17, -15))):
            multiplier, shift = multiplier_and_shift(2.0 ** self.rng.uniform(*ends))
            tensors |= {f"multiplier{end}": Tensor(multiplier, 32), f"shift{end}": Tensor(shift.astype(np.int8), 8)}
        inputs = (one, x, lengths) if self.chance(0.6) else (one, x)
        said = {"zero_point_values": self.integer("int8"), "zero_point": self.integer("int8"), **self.limits("int8")}
        self.node("softmax_mean", inputs, "int8", self.values[x].shape, said, (), tensors=tensors)

    def reduced(self, op: str, x: str, lengths: str) -> str:
        """A sequence's mean or maximum, over all of its steps or the valid ones."""
        value, mean = self.values[x], op == "time_mean"
        inputs = (x, lengths) if self.chance(0.6) else (x,)
        attributes = {"zero_point": self.integer("int8")} if mean else {}
        return self.node(op, inputs, "int32" if mean else value.dtype, value.shape, attributes, ())

    def draw(self, count: int) -> None:
        """Operations at random on what there is."""
        makers: list[Callable] = [
            self.linear, self.requantize, self.residual, self.add, self.multiply, self.pwl, self.norm, self.slice,
            self.concat, self.complement, self.multibit, self.subtract,
            self.affine, self.mod_relu, self.minimum, self.top,
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

    def affine(self) -> str:
        x = self.of("int8", "int16")
        size = self.values[x].shape[-1]
        gain = self.rng.integers(-4096, 4096, size, endpoint=True).astype(np.int16)
        bias = self.rng.integers(-(1 << 30), 1 << 30, size).astype(np.int32)
        tensors = {"gain": Tensor(gain, 16), "bias": Tensor(bias, 32)}
        attributes = {"zero_point": self.integer("int8")}
        return self.node("affine", (x,), "int32", self.values[x].shape, attributes, tensors=tensors)

    def subtract(self) -> str:
        x = self.of("int8", "int16")
        other = self.pick([x, *self.like(x)])
        zeros = {"zero_points": [self.integer("int8") for _ in range(2)]}
        return self.rescaled("subtract", [x, other], self.pick(["int8", "int16"]), zeros)

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

    def top(self) -> str:
        """Of accumulators, or of what is clamped to a few integers, so that many are equal."""
        x = self.requantize(dtype="int32")
        if len(self.values[x].shape) > 1:
            return x
        count = int(self.rng.integers(1, min(5, self.values[x].shape[0]), endpoint=True))
        return self.node("top", (x,), "int32", (2 * count,), {"count": count})

    def minimum(self) -> str:
        x = self.of("int8", "int16")
        dtype = self.values[x].dtype
        other = self.pick([x, *(name for name in self.like(x) if self.values[name].dtype == dtype)])
        return self.node("minimum", (x, other), dtype, self.values[x].shape)

    def multibit(self) -> str:
        x = self.of("int8")
        attributes = {"zero_point": self.integer("int8"), "codes": self.pick([1, 2, 3, 4])}
        return self.node("multibit", (x,), "int16", self.values[x].shape, attributes)

    def mod_relu(self) -> str:
        """Of biases that kill small magnitudes, or drive large ones out of the range."""
        x = self.of("int8", "int16")
        dtype, size = self.values[x].dtype, self.values[x].shape[-1]
        high = LIMITS[dtype][1]
        bias = Tensor(self.rng.integers(-high, high, size, endpoint=True).astype(np.int32), 32)
        return self.node("mod_relu", (x,), dtype, self.values[x].shape, self.limits(dtype), tensors={"bias": bias})

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

    def exponential(self) -> Tensor:
        table = np.sort(self.rng.integers(0, 65535, 256))[::-1].astype(np.uint16)
        table[0], table[-1] = 65535, 0
        return Tensor(table, 16)

    def attention(self, keys: str, memory: str, places: str) -> str:
        """Weights and context; the body goes on with the context."""
        query = self.requantize(self.linear(self.of("int8"), rows=MEMORY_SIZE), dtype="int16")
        shift = int(self.rng.integers(8, 24, endpoint=True))
        multiplier, score_shift = multiplier_and_shift(2.0 ** self.rng.uniform(-9, -4))
        tensors = {
            "table": self.exponential(),
            "weight": self.weight("int8", 1, MEMORY_SIZE),
            **self.pieces(LIMITS["int16"], LIMITS["int8"], shift),
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
