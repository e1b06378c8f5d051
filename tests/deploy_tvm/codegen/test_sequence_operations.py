"""Operations over time and bands, compiled: integers as the interpreter has them, float ones as NumPy has them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

import tvm

from deploy_tvm import targets
from deploy_tvm.codegen.interface import KERNEL
from deploy_tvm.codegen.plan import plan
from deploy_tvm.targets.compiler import compile_function, kernel_of
from irnn.program import Node, Program, Scan, State, Tensor, Value
from irnn.program.axes import Axis
from irnn.program.interpreter import Interpreter
from irnn.program.windows import Window
from tests.support.cpus import CPUS, runnable
from tests.support.float_reference import run_float

SIZE, BATCH, STEPS = 21, 3, 7
LENGTHS = np.array([7, 1, 4], np.int32)
LENGTHS_VALUE = Value("int32", (), low=1, high=STEPS, axes=(), counts="time")


@pytest.fixture(params=CPUS)
def target(request: pytest.FixtureRequest) -> targets.Target:
    """Each kernel set that this machine can run."""
    return runnable(request.param)


def compiled(target: targets.Target, program: Program, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of the compiled program, then its next states, which were those of the start."""
    function, constants = kernel_of(program, target)
    sizes = {"batch": BATCH, "time": STEPS}

    def shape(value: Value) -> tuple[int, ...]:
        axes = [Axis.parse(axis) for axis in value.axes]
        return BATCH, *(axis.size(sizes[axis.root]) for axis in axes), *value.shape

    values = [program.values[name] for name in program.outputs]
    results = [np.zeros(shape(value), value.dtype) for value in values]
    results += [np.zeros((BATCH, *state.shape), state.dtype) for state in program.states.values()]
    arrays = [*given.values(), *program.initial_state(BATCH).values(), *constants, *results]
    tensors = [tvm.runtime.tensor(np.ascontiguousarray(array)) for array in arrays]
    compile_function(function, KERNEL, target)[KERNEL](*tensors)
    return [tensor.numpy() for tensor in tensors[-len(results) :]]


def value(dtype: str, size: int = SIZE, axes: tuple[str, ...] = ("time",)) -> Value:
    ends = (None, None) if dtype == "float32" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    return Value(dtype, (size,), low=ends[0], high=ends[1], axes=axes)


def features(dtype: str, size: int = SIZE) -> np.ndarray:
    rng = np.random.default_rng(0)
    if dtype == "float32":
        return rng.standard_normal((BATCH, STEPS, size)).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, (BATCH, STEPS, size), endpoint=True).astype(dtype)


def after(window: Window) -> tuple[str, ...]:
    return (Axis("time").after(window.offset(0), window.strides[0]).name,)


WINDOWS = [
    Window((3, 2), (2, 1), ((1, 1), (0, 1))),
    Window((2, 1), (1, 1), ((1, 0), (0, 0))),
    Window((2, 3), dilation=(3, 1)),
    Window((1, 2), (1, 2), dilation=(1, 2)),
]
CASES: dict[str, Any] = {
    "step from the start": (Node("step", ("x",), "y", {"index": 2}), (), "same", SIZE),
    "step from the end": (Node("step", ("x",), "y", {"index": -3}), (), "same", SIZE),
    "mean": (Node("time_mean", ("x",), "y", {"zero_point": -5}), (), "int32", SIZE),
    "mean of valid steps": (Node("time_mean", ("x", "lengths"), "y", {"zero_point": 7}), (), "int32", SIZE),
    "maximum": (Node("time_max", ("x",), "y"), (), "same", SIZE),
    "maximum of valid steps": (Node("time_max", ("x", "lengths"), "y"), (), "same", SIZE),
}
for number, window in enumerate(WINDOWS):
    said = {"channels": 7, **window.attributes()}
    size = window.bands(SIZE, 7) * 7
    CASES[f"maximum of window {number}"] = (Node("max_pool", ("x",), "y", said), after(window), "same", size)
    said = said | {"zero_point": 3}
    CASES[f"mean of window {number}"] = (Node("mean_pool", ("x",), "y", said), after(window), "int32", size)


@pytest.mark.parametrize("dtype", ["int8", "int16", "float32"])
@pytest.mark.parametrize("case", CASES)
def test_an_operation_alone(target: targets.Target, case: str, dtype: str) -> None:
    node, axes, made, size = CASES[case]
    inputs = {"x": value(dtype)} | ({"lengths": LENGTHS_VALUE} if "lengths" in node.inputs else {})
    given = {"x": features(dtype)} | ({"lengths": LENGTHS} if "lengths" in inputs else {})
    if dtype == "float32":
        node = replace(node, attributes={k: v for k, v in node.attributes.items() if k != "zero_point"})
        program = Program("float", inputs, ("y",), {}, inputs | {"y": value(dtype, size, axes)}, (node,), {})
        expected, _ = run_float(program, given, {})
        np.testing.assert_allclose(compiled(target, program, given)[0], expected, rtol=1e-5, atol=1e-6)
        return
    output = value(dtype if made == "same" else made, size, axes)
    program = Program("integer", inputs, ("y",), {}, inputs | {"y": output}, (node,), {})
    program.check()
    expected, _ = Interpreter(program).run(given)
    np.testing.assert_array_equal(compiled(target, program, given)[0], expected, strict=True)


FLOAT_ALONE = [
    (Node("affine", ("x",), "y", {}, {"gain": "g", "bias": "b"}), False),
    (Node("scale", ("x",), "y", {"factor": 0.3}), False),
    (Node("clamp", ("x",), "y", {"low": -0.25, "high": 0.5}), False),
    (Node("clamp", ("x",), "y", {"high": 0.5}), False),
    (Node("subtract", ("x", "x2"), "y"), True),
]


@pytest.mark.parametrize(("node", "two"), FLOAT_ALONE)
def test_a_float_operation_alone(target: targets.Target, node: Node, two: bool) -> None:
    rng = np.random.default_rng(6)
    tensors = {name: Tensor(rng.standard_normal(SIZE).astype(np.float32), 32) for name in ("g", "b")}
    inputs = {name: value("float32") for name in ("x", "x2")[: 1 + two]}
    given = {name: rng.standard_normal((BATCH, STEPS, SIZE)).astype(np.float32) for name in inputs}
    program = Program("float", inputs, ("y",), {}, inputs | {"y": value("float32")}, (node,), tensors)
    expected, _ = run_float(program, given, {})
    np.testing.assert_allclose(compiled(target, program, given)[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reducing", ["time_mean", "time_max"])
def test_a_sequence_that_is_joined_is_reduced_part_by_part(target: targets.Target, reducing: str) -> None:
    """Rows with a joint in a register: what reaches over it must not be added twice."""
    values = {"x": value("int8"), "lengths": LENGTHS_VALUE}
    parts = [("a", 0, 5), ("b", 3, 20), ("c", 20, 21)]
    nodes = [Node("slice", ("x",), name, {"start": i, "stop": j}) for name, i, j in parts]
    values |= {name: value("int8", j - i) for name, i, j in parts}
    nodes.append(Node("concat", ("a", "b", "c"), "joined"))
    attributes = {"zero_point": 9} if reducing == "time_mean" else {}
    nodes.append(Node(reducing, ("joined", "lengths"), "y", attributes))
    values |= {"joined": value("int8", 23), "y": value("int32" if attributes else "int8", 23, ())}
    inputs = {name: values[name] for name in ("x", "lengths")}
    program = Program("integer", inputs, ("y",), {}, values, tuple(nodes), {})
    program.check()
    given = {"x": features("int8"), "lengths": LENGTHS}
    expected, _ = Interpreter(program).run(given)
    np.testing.assert_array_equal(compiled(target, program, given)[0], expected, strict=True)


def encoder_decoder(*, ragged: bool) -> Program:
    """The end of a loop, taken backwards, is where the second starts; its mean is repeated at every step of a third."""
    rng = np.random.default_rng(3)
    tensors = {
        "w": Tensor(rng.integers(-127, 128, (SIZE, SIZE)).astype(np.int8), 8),
        "b": Tensor(rng.integers(-999, 999, SIZE).astype(np.int32), 32),
        "m": Tensor(np.array([(1 << 30) + 12345], np.int32), 32),
        "s": Tensor(np.array([39], np.int8), 8),
    }
    values = {"x": value("int8"), "v": value("int8", axes=())} | ({"lengths": LENGTHS_VALUE} if ragged else {})
    inputs = dict(values)
    nodes: list[Node | Scan] = []

    def scan(name: str, source: str, starts: dict[str, str], reverse: bool) -> None:
        body = (
            Node("linear", (f"{name}.before",), f"{name}.product", {}, {"weight": "w", "bias": "b"}),
            Node("requantize", (f"{name}.product",), f"{name}.narrow", {"zero_point": 2, "low": -128, "high": 127},
                 {"multiplier_0": "m", "shift_0": "s"}),
            Node("add", (f"{name}.narrow", f"{name}.x"), f"{name}.after", {"low": -128, "high": 127}),
        )  # fmt: skip
        for part in ("x", "before", "product", "narrow", "after", "end"):
            values[f"{name}.{part}"] = value("int32" if part == "product" else "int8", axes=())
        values[f"{name}.y"] = value("int8")
        nodes.append(
            Scan({f"{name}.x": source}, {name: (f"{name}.before", f"{name}.after")}, {f"{name}.y": f"{name}.after"},
                 body, reverse, (), "lengths" if ragged else None, starts, {f"{name}.end": name})
        )  # fmt: skip

    scan("one", "x", {}, True)
    scan("two", "x", {"two": "one.end"}, False)
    nodes.append(Node("time_max", ("two.y", "lengths") if ragged else ("two.y",), "top"))
    nodes.append(Node("add", ("top", "v"), "sum", {"low": -100, "high": 100}))
    nodes.append(Node("repeat", ("sum", "two.y"), "everywhere"))
    values |= {"top": value("int8", axes=()), "sum": value("int8", axes=()), "everywhere": value("int8")}
    scan("three", "everywhere", {"three": "sum"}, True)
    outputs = ("one.end", "two.y", "three.y", "three.end", "everywhere")
    return Program("integer", inputs, outputs, {"one": State("int8", (SIZE,), -3)}, values, tuple(nodes), tensors)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_states_that_are_values(target: targets.Target, ragged: bool, batch: int, monkeypatch: Any) -> None:
    """One sequence and several, whose loops are written in another way."""
    monkeypatch.setitem(globals(), "BATCH", batch)
    program = encoder_decoder(ragged=ragged)
    program.check()
    rng = np.random.default_rng(4)
    given = {"x": features("int8"), "v": rng.integers(-128, 128, (batch, SIZE)).astype(np.int8)}
    if ragged:
        given["lengths"] = LENGTHS[-batch:]
    outputs, states = Interpreter(program).run_all(given)
    found = compiled(target, program, given)
    for name, ours, theirs in zip((*program.outputs, "one"), found, [*outputs, *states.values()], strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=name, strict=True)


def test_the_plan_names_them() -> None:
    program = encoder_decoder(ragged=True)
    text = plan(program, 16).describe()
    assert "reduce        top = time_max two.y, lengths" in text
    assert "store         sum (with add)" in text
    window = CASES["maximum of window 0"][0]
    x = {"x": value("int8")}
    pooled = Program("integer", x, ("y",), {}, x | {"y": value("int8", 21, ("time/2",))}, (window,), {})
    assert "pool          y = max_pool of the windows" in plan(pooled, 16).describe()
