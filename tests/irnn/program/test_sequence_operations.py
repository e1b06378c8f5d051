"""Operations over time and bands, differences, states as values: definitions, bounds, refusals, float twins."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irnn
from irnn.arithmetic import fixed_point
from irnn.arithmetic.numpy_ops import NUMPY
from irnn.arithmetic.torch_ops import TORCH
from irnn.errors import IrnnError
from irnn.program import Node, Program, Scan, State, Tensor, Value
from irnn.program.check import ranges
from irnn.program.document import format_version
from irnn.program.interpreter import Interpreter
from irnn.program.listing import listing
from tests.support.checked_ops import CheckedOps
from tests.support.float_reference import run_float

both = pytest.mark.parametrize("ops", [NUMPY, TORCH], ids=["numpy", "torch"])
LENGTHS = Value("int32", (), low=1, high=9, axes=(), counts="time")


def sequence(size: int = 2, dtype: str = "int8", **other: Any) -> Value:
    limits = {"low": int(np.iinfo(dtype).min), "high": int(np.iinfo(dtype).max)} if dtype != "float32" else {}
    return Value(dtype, (size,), **(limits | other))


def program(node: Node, inputs: dict[str, Value], output: Value, tensors: dict[str, Tensor] | None = None) -> Program:
    kind = "float" if output.dtype == "float32" else "integer"
    roles = {name: name for name in tensors or {}}
    node = replace(node, tensors=roles)
    return Program(kind, inputs, (node.output,), {}, inputs | {node.output: output}, (node,), tensors or {})


def run(made: Program, ops: Any, **inputs: np.ndarray) -> np.ndarray:
    made.check()
    (y,), _ = Interpreter(made, ops).run_all(inputs)
    return np.asarray(y)


def step(index: int, **other: Any) -> Program:
    return program(Node("step", ("x",), "y", {"index": index}), {"x": sequence(**other)}, sequence(axes=()))


@both
@pytest.mark.parametrize("index", [0, 2, -1, -3])
def test_a_step_is_that_of_the_axis(ops: Any, index: int) -> None:
    x = np.arange(24, dtype=np.int8).reshape(3, 4, 2)
    np.testing.assert_array_equal(run(step(index), ops, x=x), x[:, index], strict=True)


def test_a_step_has_its_place() -> None:
    """Sequences that are too short are refused, not read beyond their end."""
    short = np.zeros((1, 2, 2), np.int8)
    for index, least in ((3, 4), (-3, 3)):
        with pytest.raises(IrnnError, match=f"the inputs have 2 along time, this program takes at least {least}"):
            step(index).run(short)
    behind = step(2)
    behind.values["x"] = behind.inputs["x"] = replace(behind.inputs["x"], axes=("time/2",))
    assert behind.fewest == {"time": 5}
    with pytest.raises(IrnnError, match="step y reads x, which is no sequence over time"):
        step(0, axes=("memory",)).check()
    assert step(-1).streaming
    assert not step(0).streaming


def subtract(multipliers: tuple[int, int] = (1 << 30, 1 << 30), shifts: tuple[int, int] = (31, 31)) -> Program:
    tensors = {}
    for k in (0, 1):
        tensors[f"multiplier_{k}"] = Tensor(np.array([multipliers[k]], np.int32), 32)
        tensors[f"shift_{k}"] = Tensor(np.array([shifts[k]], np.int8), 8)
    attributes = {"zero_points": [5, -7], "zero_point": 3, "low": -100, "high": 90}
    inputs = {"a": sequence(), "b": sequence()}
    return program(Node("subtract", ("a", "b"), "y", attributes), inputs, sequence(), tensors)


@both
def test_a_difference_rounds_each_term_half_up(ops: Any) -> None:
    """By halves, so that many are ties: the second is negated before it is rounded."""
    every = np.arange(-128, 128, dtype=np.int8)
    a, b = (side.reshape(1, -1, 2) for side in np.meshgrid(every, every))
    y = run(subtract(), ops, a=a, b=b)
    exact = [
        min(max(floor(Fraction(p - 5, 2) + Fraction(1, 2)) + floor(Fraction(-7 - q, 2) + Fraction(1, 2)) + 3, -100), 90)
        for p, q in zip(a.reshape(-1).tolist(), b.reshape(-1).tolist(), strict=True)
    ]
    assert y.reshape(-1).tolist() == exact
    assert ranges(subtract())["y"] == (-100, 90)


def test_a_difference_is_one_of_narrow_values() -> None:
    made = subtract()
    made.values["b"] = made.inputs["b"] = sequence(dtype="int32")
    with pytest.raises(IrnnError, match="subtract y reads b, which is not int8 or int16"):
        made.check()
    with pytest.raises(IrnnError, match=r"multipliers must lie in \[2\*\*30, 2\*\*31\)"):
        subtract(multipliers=(1 << 30, -(1 << 30))).check()


def affine(gain: int = 4096, bias: int = 1 << 30, dtype: str = "int16", size: int = 2) -> Program:
    tensors = {
        "gain": Tensor(np.array([gain, -gain], np.int16 if gain < 1 << 15 else np.int32), 16),
        "bias": Tensor(np.array([bias, -bias], np.int32), 32),
    }
    node = Node("affine", ("x",), "y", {"zero_point": -5})
    return program(node, {"x": sequence(size, dtype)}, sequence(size, "int32"), tensors)


@both
def test_factors_and_summands_are_those_of_each_element(ops: Any) -> None:
    x = np.array([[[-32768, -32768], [32767, 32767], [-5, -5]]], np.int16)
    y = run(affine(), ops, x=x)
    assert y.tolist() == [[[4096 * (v + 5) + (1 << 30), -4096 * (v + 5) - (1 << 30)] for v in (-32768, 32767, -5)]]
    high = 4096 * 32772 + (1 << 30)
    assert ranges(affine())["y"] == (-high, high)
    with pytest.raises(IrnnError, match="affine y could overflow int32"):
        affine(gain=32767, bias=1 << 30).check()
    with pytest.raises(IrnnError, match="affine y reads x, which is not int8 or int16"):
        affine(gain=1, dtype="int32").check()
    with pytest.raises(IrnnError, match="affine y: x has 3 elements, its constants 2, 2"):
        affine(size=3).check()
    with pytest.raises(IrnnError, match="gain: a gain is int32; allowed are int8 and int16"):
        affine(gain=1 << 15, bias=0).check()


def reduced(op: str, dtype: str, *, lengths: bool, zero_point: int = 0) -> Program:
    inputs = {"x": sequence(dtype=dtype)} | ({"lengths": LENGTHS} if lengths else {})
    attributes = {"zero_point": zero_point} if op == "time_mean" else {}
    return program(
        Node(op, tuple(inputs), "y", attributes), inputs, sequence(dtype="int32" if attributes else dtype, axes=())
    )


@both
@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_a_mean_is_that_of_the_valid_steps(ops: Any, dtype: str) -> None:
    rng, ends = np.random.default_rng(0), np.iinfo(dtype)
    x = rng.integers(ends.min, ends.max, (3, 7, 2), endpoint=True).astype(dtype)
    x[0] = ends.min
    lengths = np.array([7, 1, 3], np.int32)
    y = run(reduced("time_mean", dtype, lengths=True, zero_point=100), ops, x=x, lengths=lengths)
    exact = [
        [floor(Fraction(256 * sum(int(v) - 100 for v in x[b, :n, k]), int(n)) + Fraction(1, 2)) for k in range(2)]
        for b, n in enumerate(lengths)
    ]
    assert y.tolist() == exact
    whole = run(reduced("time_mean", dtype, lengths=False, zero_point=100), ops, x=x[:1, :3])
    assert whole.tolist() == [[(int(ends.min) - 100) * 256] * 2]
    assert ranges(reduced("time_mean", dtype, lengths=False, zero_point=100))["y"][0] == (int(ends.min) - 100) * 256


def test_a_mean_of_two_billion_steps_fits() -> None:
    """The claim at MEAN_FRACTION_BITS: widths of the largest sum, and of the result."""
    ops = CheckedOps()
    steps = 2**31 - 1
    for value in (65535, -65535):
        y = fixed_point.mean(ops, ops.to(np.array([value * steps]), "int64"), ops.to(steps, "int64"))
        assert y.values.tolist() == [value * 256]


@both
@pytest.mark.parametrize("dtype", ["int8", "int16", "int32"])
def test_a_maximum_is_that_of_the_valid_steps(ops: Any, dtype: str) -> None:
    rng, ends = np.random.default_rng(1), np.iinfo(dtype)
    x = rng.integers(ends.min, -1, (3, 7, 2)).astype(dtype)
    lengths = np.array([7, 1, 3], np.int32)
    y = run(reduced("time_max", dtype, lengths=True), ops, x=x, lengths=lengths)
    np.testing.assert_array_equal(y, np.stack([x[b, :n].max(0) for b, n in enumerate(lengths)]), strict=True)
    np.testing.assert_array_equal(run(reduced("time_max", dtype, lengths=False), ops, x=x), x.max(1), strict=True)


def test_what_is_reduced_is_a_sequence_of_rows() -> None:
    made = reduced("time_max", "int8", lengths=False)
    made.values["x"] = made.inputs["x"] = Value("int8", (2, 3), low=0, high=1)
    with pytest.raises(IrnnError, match=r"time_max y reads x of the shape \(2, 3\), which is no row"):
        made.check()
    with pytest.raises(IrnnError, match="time_mean y reads x, which is not int8 or int16"):
        reduced("time_mean", "int32", lengths=False).check()
    assert not reduced("time_mean", "int8", lengths=False).streaming


@both
def test_a_value_is_repeated_along_time(ops: Any) -> None:
    inputs = {"v": sequence(axes=()), "x": sequence(3, axes=("time",))}
    made = program(Node("repeat", ("v", "x"), "y"), inputs, sequence())
    v = np.array([[1, 2], [3, 4]], np.int8)
    y = run(made, ops, v=v, x=np.zeros((2, 5, 3), np.int8))
    np.testing.assert_array_equal(y, v[:, None].repeat(5, 1), strict=True)
    made.values["v"] = made.inputs["v"] = sequence()
    with pytest.raises(IrnnError, match="repeat y reads v, which is a sequence already"):
        made.check()


def pooled(op: str, padding: Any = ((1, 0), (0, 1)), dilation: Any = (1, 1), size: int = 6) -> Program:
    attributes = {"channels": 2, "kernel": [2, 2], "strides": [1, 1], "padding": padding, "dilation": dilation}
    if op == "mean_pool":
        attributes |= {"zero_point": -3}
    output = sequence(6, "int8" if op == "max_pool" else "int32")
    return program(Node(op, ("x",), "y", attributes), {"x": sequence(size)}, output)


@both
def test_a_pooling_never_sees_its_border(ops: Any) -> None:
    x = np.array([[[-128, -5, -7, -100, 3, -1], [-128, -4, -9, -128, 2, -2]]], np.int8)
    y = run(pooled("max_pool"), ops, x=x)
    assert y.tolist() == [[[-7, -5, 3, -1, 3, -1], [-7, -4, 3, -1, 3, -1]]]
    y = run(pooled("mean_pool"), ops, x=x)
    first = [(-128 + 3) + (-7 + 3), (-5 + 3) + (-100 + 3), (-7 + 3) + 6, (-100 + 3) + 2, 6, 2]
    second = [(-128 + 3) + (-9 + 3), (-4 + 3) + (-128 + 3), (-9 + 3) + 5, (-128 + 3) + 1, 5, 1]
    assert y.tolist() == [[first, [p + q for p, q in zip(first, second, strict=True)]]]
    assert ranges(pooled("mean_pool"))["y"] == (-125 * 4, 130 * 4)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (pooled("max_pool", padding=((2, 0), (0, 1))), "max_pool y may see nothing but the border"),
        (pooled("max_pool", dilation=(1, 2)), "max_pool y may see nothing but the border"),
        (pooled("max_pool", padding=((-1, 0), (0, 1))), "max_pool y: a border cannot be negative"),
        (pooled("mean_pool", dilation=(0, 1)), "mean_pool y: kernel, strides and dilation must be at least 1"),
        (pooled("mean_pool", size=5), "mean_pool y: x of 5 elements has too few bands of 2 channels"),
        (pooled("mean_pool", padding=((0, 0), (0, 0)), size=2), "mean_pool y: x of 2 elements has too few bands"),
    ],
)
def test_a_window_that_is_none_is_refused(what: Program, message: str) -> None:
    with pytest.raises(IrnnError, match=message):
        what.check()


def two_loops(lengths: bool = False) -> Program:
    """The first adds up x in int16; the second starts where that ended, and adds up backwards to the output."""
    values = {"x": sequence(dtype="int16", low=-9, high=9)} | ({"lengths": LENGTHS} if lengths else {})
    inputs = dict(values)
    for name in ("one", "two"):
        values |= {f"{name}.{part}": sequence(dtype="int16", axes=()) for part in ("x", "before", "after")}
        values |= {f"{name}.y": sequence(dtype="int16"), f"{name}.end": sequence(dtype="int16", axes=())}
    nodes = []
    for name, starts in (("one", {}), ("two", {"two": "one.end"})):
        add = Node("add", (f"{name}.x", f"{name}.before"), f"{name}.after", {"low": -32768, "high": 32767})
        state = {name: (f"{name}.before", f"{name}.after")}
        nodes.append(
            Scan(
                {f"{name}.x": "x"}, state, {f"{name}.y": f"{name}.after"}, (add,), name == "two",
                lengths="lengths" if lengths else None, starts=starts, finals={f"{name}.end": name},
            )
        )  # fmt: skip
    states = {"one": State("int16", (2,), 7)}
    return Program("integer", inputs, ("two.end", "two.y"), states, values, tuple(nodes), {})


@both
def test_a_loop_starts_where_another_has_ended(ops: Any) -> None:
    x = np.arange(-6, 6).reshape(2, 3, 2).astype(np.int16)
    made = two_loops()
    made.check()
    (end, y), state = Interpreter(made, ops).run_all({"x": x})
    np.testing.assert_array_equal(np.asarray(end), 7 + 2 * x.sum(1))
    np.testing.assert_array_equal(np.asarray(y)[:, 0], np.asarray(end))
    assert list(state) == ["one"]
    np.testing.assert_array_equal(np.asarray(state["one"]), 7 + x.sum(1))
    lengths = np.array([2, 3], np.int32)
    (end, _), _ = Interpreter(two_loops(lengths=True), ops).run_all({"x": x, "lengths": lengths})
    np.testing.assert_array_equal(np.asarray(end), np.stack([7 + 2 * x[b, :n].sum(0) for b, n in enumerate(lengths)]))


def test_states_that_are_values_are_stored_and_listed(tmp_path: Path) -> None:
    made = two_loops()
    assert format_version(made) == 2
    made.save(tmp_path / "p")
    loaded = irnn.load(tmp_path / "p")
    assert loaded.nodes == made.nodes
    text = listing(made)
    assert "    two starts at one.end\n" in text
    assert "    last two is two.end\n" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"starts": {}}, "state two is none of the program's and starts from nothing"),
        ({"starts": {"two": "x"}}, "state two starts from x, which is a sequence"),
    ],
)
def test_a_state_starts_from_a_value_of_its_form(change: dict, message: str) -> None:
    made = two_loops()
    first, second = made.nodes
    with pytest.raises(IrnnError, match=message):
        replace(made, nodes=(first, replace(second, **change))).check()
    with pytest.raises(IrnnError, match=r"state two is one of the program's and starts from one\.end"):
        replace(made, states=made.states | {"two": made.states["one"]}).check()
    narrow = made.values | {"one.end": sequence(axes=())}
    with pytest.raises(IrnnError, match=r"state two is int16 \(2,\) and starts as int8 \(2,\)"):
        replace(made, values=narrow).check()


@both
def test_lengths_behind_a_window(ops: Any) -> None:
    least = replace(LENGTHS, low=3)
    node = Node("shorten", ("lengths",), "y", {"factor": 2, "offset": -1})
    made = program(node, {"x": sequence(), "lengths": least}, Value("int32", (), axes=()))
    assert ranges(made)["y"] == (1, 4)
    y = run(made, ops, x=np.zeros((3, 9, 2), np.int8), lengths=np.array([3, 8, 9], np.int32))
    assert y.tolist() == [1, 3, 4]
    assert format_version(made) == 2


FLOAT = {"x": sequence(4, "float32")}


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (Node("step", ("x",), "y", {"index": 1}), lambda x: x[:, 1]),
        (Node("subtract", ("x", "x"), "y"), lambda x: x - x),
        (Node("clamp", ("x",), "y", {"low": -0.5, "high": 0.25}), lambda x: np.clip(x, -0.5, 0.25)),
        (Node("clamp", ("x",), "y", {"low": 0.1}), lambda x: np.maximum(x, 0.1)),
        (Node("time_mean", ("x",), "y"), lambda x: x.mean(1)),
        (Node("time_max", ("x",), "y"), lambda x: x.max(1)),
    ],
)
def test_all_have_float_twins(node: Node, expected: Any) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 4))
    axes = () if node.op.startswith("time") or node.op == "step" else ("time",)
    y, _ = run_float(program(node, FLOAT, sequence(4, "float32", axes=axes)), x, {})
    np.testing.assert_allclose(y, expected(x), rtol=1e-12)
