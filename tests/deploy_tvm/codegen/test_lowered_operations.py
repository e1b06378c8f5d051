"""Operations that no converted model of the tests has, lowered from programs made by hand: NumPy's integers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

import tvm

from deploy_tvm import targets
from deploy_tvm.codegen.interface import KERNEL
from deploy_tvm.static.bare import BareFunction
from deploy_tvm.targets.compiler import compile_function, kernel_of
from irnn.program import LENGTH_MAX, Node, Program, Scan, State, Tensor, Value
from tests.deploy_tvm.codegen.test_arm_kernels import ARM
from tests.support.boards import need_bare
from tests.support.cpus import CPUS, runnable

SIZE, BATCH, STEPS = 21, 3, 5
LENGTHS = np.array([5, 1, 3], np.int32)


@pytest.fixture(params=[*CPUS, *ARM])
def target(request) -> targets.Target:
    """Each kernel set that this machine can run or emulate."""
    if request.param in CPUS:
        return runnable(request.param)
    need_bare(ARM[request.param])
    return ARM[request.param]


def execute(target: targets.Target, program: Program, *given: np.ndarray) -> list[np.ndarray]:
    """Outputs and next states of the compiled program; ``given`` are its inputs and its states, in order."""
    function, constants = kernel_of(program, target)
    sizes = {"batch": len(given[0]), "time": STEPS}
    values = [program.values[name] for name in program.outputs]
    results = [np.zeros((sizes["batch"], *(sizes[axis] for axis in v.axes), *v.shape), v.dtype) for v in values]
    results += [np.zeros((sizes["batch"], *state.shape), state.dtype) for state in program.states.values()]
    return run(target, function, [*given, *constants], results)


def run(target: targets.Target, function: Any, given: list[np.ndarray], results: list[np.ndarray]) -> list[np.ndarray]:
    """What a compiled function writes into memory like ``results``, which follow what it is given."""
    arrays = [*given, *results]
    if target.mtriple.startswith("x86"):
        tensors = [tvm.runtime.tensor(array) for array in arrays]
        compile_function(function, KERNEL, target)[KERNEL](*tensors)
        return [tensor.numpy() for tensor in tensors[-len(results) :]]
    with tempfile.TemporaryDirectory() as folder:
        return BareFunction(function, target, Path(folder))(*arrays)[-len(results) :]


def made(kind: str, values: dict[str, Value], outputs: tuple[str, ...], nodes: tuple, **parts) -> Program:
    """A program of which the inputs are the values x and lengths, where there are such."""
    inputs = {name: values[name] for name in ("x", "lengths") if name in values}
    return Program(kind, inputs, outputs, parts.get("states", {}), values, nodes, parts.get("tensors", {}))


def sequence(dtype: str = "int8", size: int = SIZE, axes: tuple[str, ...] = ("time",)) -> Value:
    low, high = (None, None) if dtype == "float32" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    return Value(dtype, (size,), low=low, high=high, axes=axes)


def features(dtype: str = "int8") -> np.ndarray:
    rng = np.random.default_rng(0)
    if dtype == "float32":
        return rng.standard_normal((BATCH, STEPS, SIZE)).astype(dtype)
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max, (BATCH, STEPS, SIZE), endpoint=True).astype(dtype)
    x[0, 0, :2] = info.min, info.max
    return x


LENGTHS_VALUE = Value("int32", (), low=1, high=LENGTH_MAX, axes=(), counts="time")


def test_complement(target: targets.Target) -> None:
    """-1 - x of every int8, and 1 - x of floats."""
    for dtype, one in (("int8", -1), ("float32", 1)):
        values = {"x": sequence(dtype), "y": sequence(dtype)}
        kind = "float" if dtype == "float32" else "integer"
        program = made(kind, values, ("y",), (Node("complement", ("x",), "y"),))
        x = features(dtype)
        (y,) = execute(target, program, x)
        assert y.dtype == np.dtype(dtype)
        assert np.array_equal(y, np.array(one, dtype) - x)


def test_minimum(target: targets.Target) -> None:
    """Halves of a row against each other, integers and floats."""
    for dtype in ("int8", "int16", "float32"):
        values = {"x": sequence(dtype, 34), **{name: sequence(dtype, 17) for name in "aby"}}
        halves = [Node("slice", ("x",), name, {"start": k, "stop": k + 17}) for name, k in (("a", 0), ("b", 17))]
        kind = "float" if dtype == "float32" else "integer"
        program = made(kind, values, ("y",), (*halves, Node("minimum", ("a", "b"), "y")))
        x = np.concatenate([features(dtype), features(dtype)[..., ::-1]], -1)[..., :34].copy()
        (y,) = execute(target, program, x)
        assert np.array_equal(y, np.minimum(x[..., :17], x[..., 17:]))


@pytest.mark.parametrize(("count", "size"), [(1, 300), (3, 300), (SIZE, SIZE)])
def test_top(target: targets.Target, count: int, size: int) -> None:
    """Ties go to the lower place; the ends of int32 are elements as any other."""
    values = {"x": sequence("int32", size), "y": sequence("int32", 2 * count)}
    x = np.random.default_rng(0).integers(-3, 3, (BATCH, STEPS, size)).astype(np.int32)
    x[0, 1:] = np.random.default_rng(1).integers(-1000, 1000, (STEPS - 1, size))
    x[0, 0, 5:9] = np.iinfo("int32").max
    x[1] = np.iinfo("int32").min
    x[2, :, 1:] = np.iinfo("int32").min
    (y,) = execute(target, made("integer", values, ("y",), (Node("top", ("x",), "y", {"count": count}),)), x)
    places = np.argsort(-x.astype(np.int64), axis=-1, kind="stable")[..., :count]
    assert np.array_equal(y, np.concatenate([np.take_along_axis(x, places, -1), places], -1))


def test_complement_of_every_byte(target: targets.Target) -> None:
    every = np.arange(-128, 128).astype(np.int8)[None, None].repeat(STEPS, 1)
    values = {"x": sequence(size=256), "y": sequence(size=256)}
    (y,) = execute(target, made("integer", values, ("y",), (Node("complement", ("x",), "y"),)), every)
    assert np.array_equal(y, -1 - every)


@pytest.mark.parametrize("dtype", ["int8", "int16", "float32"])
@pytest.mark.parametrize("with_lengths", [False, True])
def test_the_last_step_of_an_input(target: targets.Target, dtype: str, with_lengths: bool) -> None:
    """A value without its time axis; with lengths, each sequence's own last step."""
    values = {"x": sequence(dtype), "y": sequence(dtype, axes=())}
    given = [features(dtype)]
    names = ("x",)
    if with_lengths:
        values["lengths"], names = LENGTHS_VALUE, ("x", "lengths")
        given.append(LENGTHS)
    kind = "float" if dtype == "float32" else "integer"
    (y,) = execute(target, made(kind, values, ("y",), (Node("last", names, "y"),)), *given)
    steps = LENGTHS - 1 if with_lengths else np.full(BATCH, STEPS - 1)
    assert np.array_equal(y, given[0][np.arange(BATCH), steps])


@pytest.mark.parametrize("with_lengths", [False, True])
def test_a_row_of_logits_from_the_last_step_of_a_loop(target: targets.Target, with_lengths: bool) -> None:
    """Scan -> last -> complement -> linear: a classifier's head.  The loop adds up its inputs, saturating."""
    rng = np.random.default_rng(1)
    weight, bias = rng.integers(-127, 128, (4, SIZE)).astype(np.int8), np.arange(4, dtype=np.int32)
    values = {
        "x": sequence(), "x_t": sequence(axes=()), "h": sequence(axes=()), "h_next": sequence(axes=()),
        "hs": sequence(), "end": sequence(axes=()), "flipped": sequence(axes=()),
        "logits": sequence("int32", 4, axes=()),
    }  # fmt: skip
    lengths = ()
    given = [features(), np.full((BATCH, SIZE), 3, np.int8)]
    if with_lengths:
        values["lengths"], lengths = LENGTHS_VALUE, ("lengths",)
        given.insert(1, LENGTHS)
    add = Node("add", ("x_t", "h"), "h_next", {"low": -128, "high": 127})
    scan = Scan({"x_t": "x"}, {"h": ("h", "h_next")}, {"hs": "h_next"}, (add,), lengths=lengths[0] if lengths else None)
    nodes = (
        scan,
        Node("last", ("hs", *lengths), "end"),
        Node("complement", ("end",), "flipped"),
        Node("linear", ("flipped",), "logits", {}, {"weight": "w", "bias": "b"}),
    )
    program = made(
        "integer", values, ("logits",), nodes,
        states={"h": State("int8", (SIZE,))}, tensors={"w": Tensor(weight, 8), "b": Tensor(bias, 32)},
    )  # fmt: skip
    logits, state = execute(target, program, *given)
    h = np.zeros((BATCH, SIZE), np.int8)
    for b, length in enumerate(LENGTHS if with_lengths else [STEPS] * BATCH):
        row = given[-1][b].astype(np.int32)
        for t in range(length):
            row = np.clip(row + given[0][b, t], -128, 127)
        h[b] = row
    assert np.array_equal(state, h)
    assert np.array_equal(logits, (-1 - h).astype(np.int32) @ weight.T.astype(np.int32) + bias)


def test_a_product_with_an_int16_sequence(target: targets.Target) -> None:
    """12-bit activations and 4-bit weights, before a loop's time and for all steps at once."""
    rng = np.random.default_rng(2)
    weight, bias = rng.integers(-7, 8, (33, SIZE)).astype(np.int8), rng.integers(-99, 99, 33).astype(np.int32)
    values = {"x": sequence("int16"), "y": sequence("int32", 33)}
    node = Node("linear", ("x",), "y", {}, {"weight": "w", "bias": "b"})
    program = made("integer", values, ("y",), (node,), tensors={"w": Tensor(weight, 4), "b": Tensor(bias, 32)})
    x = (features("int16") >> 4).astype(np.int16)
    (y,) = execute(target, program, x)
    assert np.array_equal(y, x.astype(np.int32) @ weight.T.astype(np.int32) + bias)


@pytest.mark.parametrize("dtype", ["int8", "int16", "float32"])
def test_the_last_rows_of_a_matrix(cpu: targets.Target, dtype: str) -> None:
    """A register, some of them, a block and a row more: for all steps at once as outputs, and of one vector."""
    rng, x = np.random.default_rng(3), features(dtype)
    values, nodes, tensors, outputs = {"x": sequence(dtype)}, [], {}, []
    wide = "float32" if dtype == "float32" else "int32"
    values["end"] = sequence(dtype, axes=())
    nodes.append(Node("last", ("x",), "end"))
    for rows in (1, 9, 33, 65):
        tensors[f"w{rows}"] = Tensor(rng.integers(-127, 128, (rows, SIZE)).astype(np.int8), 8)
        tensors[f"b{rows}"] = Tensor(rng.integers(-999, 999, rows).astype(wide), 32)
        if wide == "float32":
            tensors[f"w{rows}"] = Tensor(tensors[f"w{rows}"].data.astype(wide), 32)
        for source, name, axes in (("x", f"y{rows}", ("time",)), ("end", f"z{rows}", ())):
            values[name] = sequence(wide, rows, axes)
            nodes.append(Node("linear", (source,), name, {}, {"weight": f"w{rows}", "bias": f"b{rows}"}))
            outputs.append(name)
    kind = "float" if wide == "float32" else "integer"
    program = made(kind, values, tuple(outputs), tuple(nodes), tensors=tensors)
    for name, found in zip(outputs, execute(cpu, program, x), strict=True):
        given = x if name[0] == "y" else x[:, -1]
        exact = given.astype(np.float64) @ tensors[f"w{name[1:]}"].data.T + tensors[f"b{name[1:]}"].data
        if kind == "float":  # sums of 21 products of at most 4 * 127, in another order
            np.testing.assert_allclose(found, exact, atol=2e-3)
        else:
            np.testing.assert_array_equal(found, exact.astype(np.int32))


def test_residual_at_its_ends(target: targets.Target) -> None:
    """Every int16 and int8 with zero points at both ends, against Python's integers."""
    every = np.arange(-32768, 32768).astype(np.int16).reshape(1, -1, 64)
    other = np.resize(np.arange(-128, 128).astype(np.int8), every.shape)
    values = {"x": sequence("int16", 64), "lengths": sequence("int8", 64), "y": sequence("int8", 64)}
    factors = {"multiplier_0": 1_503_238_553, "shift_0": 38, "multiplier_1": 2_147_483_647, "shift_1": 32}
    tensors = {k: Tensor(np.array([v], np.int8 if k[0] == "s" else np.int32), 32) for k, v in factors.items()}
    attributes = {"zero_points": [0, -128], "zero_point": -77, "low": -128, "high": 127}
    node = Node("residual", ("x", "lengths"), "y", attributes, {k: k for k in factors})
    program = Program("integer", {k: values[k] for k in ("x", "lengths")}, ("y",), {}, values, (node,), tensors)
    function, constants = kernel_of(program, target)
    (found,) = run(target, function, [every, other, *constants], [np.zeros(every.shape, np.int8)])

    def rounded(value: int, k: int) -> int:
        shift = factors[f"shift_{k}"]
        return (value * factors[f"multiplier_{k}"] + (1 << (shift - 1))) >> shift

    pairs = zip(every.flat, other.flat, strict=True)
    wanted = [max(-128, min(127, rounded(int(a), 0) + rounded(int(b) + 128, 1) - 77)) for a, b in pairs]
    assert found.flatten().tolist() == wanted
