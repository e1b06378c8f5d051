"""Attention pooling, and what reads a pooled sequence, compiled and exported: the integers of the interpreter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

from deploy_tvm import targets
from irnn.export.c99 import export as export_c99
from irnn.nn.attention import Exponential
from irnn.program import Node, Program, Tensor
from irnn.program.interpreter import Interpreter
from irnn.program.windows import Window
from tests.deploy_tvm.codegen.test_sequence_operations import (
    BATCH,
    LENGTHS,
    LENGTHS_VALUE,
    SIZE,
    STEPS,
    after,
    compiled,
    features,
)
from tests.deploy_tvm.codegen.test_sequence_operations import target as target
from tests.deploy_tvm.codegen.test_sequence_operations import value as value
from tests.support.c99 import MACHINES, Exported
from tests.support.program_oracle import ProgramOracle

ROLES = ("table", "multiplier", "shift", "multiplier_mean", "shift_mean")


def pooling(*, ragged: bool) -> Program:
    """Scores and values -> attention pooling."""
    exponential = Exponential()
    exponential.configure(16, "greedy")
    tensors = {
        "table": Tensor(exponential.table(), 16),
        "multiplier": Tensor(np.array([(1 << 30) + 777], np.int32), 32),
        "shift": Tensor(np.array([38], np.int8), 8),
        "multiplier_mean": Tensor(np.array([(1 << 30) + 9], np.int32), 32),
        "shift_mean": Tensor(np.array([46], np.int8), 8),
    }
    said = {"zero_point_values": -7, "zero_point": 3, "low": -128, "high": 127}
    inputs = {"s": value("int16", 1), "x": value("int8")} | ({"lengths": LENGTHS_VALUE} if ragged else {})
    node = Node("softmax_mean", tuple(inputs), "y", said, {role: role for role in ROLES})
    return Program("integer", inputs, ("y",), {}, inputs | {"y": value("int8", axes=())}, (node,), tensors)


def given(*, ragged: bool) -> dict[str, np.ndarray]:
    return {"s": features("int16", 1), "x": features("int8")} | ({"lengths": LENGTHS} if ragged else {})


@pytest.mark.parametrize("ragged", [False, True])
def test_attention_pooling(target: targets.Target, ragged: bool) -> None:
    program = pooling(ragged=ragged)
    program.check()
    (expected,), _ = Interpreter(program).run_all(given(ragged=ragged))
    (oracle,), _ = ProgramOracle(program).run_batch(given(ragged=ragged))
    np.testing.assert_array_equal(expected, oracle, strict=True)
    np.testing.assert_array_equal(compiled(target, program, given(ragged=ragged))[0], expected, strict=True)
    assert len(np.unique(expected)) > SIZE  # it neither saturates nor rests


def test_padding_would_be_noticed() -> None:
    (expected,), _ = Interpreter(pooling(ragged=True)).run_all(given(ragged=True))
    (wrong,), _ = Interpreter(pooling(ragged=False)).run_all(given(ragged=False))
    assert np.array_equal(wrong[0], expected[0])  # the first sequence has no padding
    assert not np.array_equal(wrong[1:], expected[1:])


@pytest.mark.parametrize(
    ("dtypes", "problem"),
    [(("int8", "int8"), "reads int8 and int8, not int16 and int8"), (("int16", "int16"), "reads int16 and int16")],
)
def test_other_operands_are_refused(dtypes: tuple[str, str], problem: str) -> None:
    program = pooling(ragged=False)
    program.values.update({"s": value(dtypes[0], 1), "x": value(dtypes[1])})
    program.inputs.update({"s": value(dtypes[0], 1), "x": value(dtypes[1])})
    with pytest.raises(Exception, match=problem):
        program.check()


@pytest.mark.parametrize("ragged", [False, True])
def test_exported_as_onnx(ragged: bool, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from irnn.export.onnx import export

    program = pooling(ragged=ragged)
    export(program, tmp_path / "p.onnx")
    session = runtime.InferenceSession(str(tmp_path / "p.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(["y"], given(ragged=ragged))
    np.testing.assert_array_equal(found, Interpreter(program).run_all(given(ragged=ragged))[0][0])


@pytest.mark.parametrize("ragged", [False, True])
def test_exported_as_c99(ragged: bool, tmp_path: Path) -> None:
    program, machine = pooling(ragged=ragged), MACHINES["gcc"]
    machine.need()
    (source,) = export_c99(program, tmp_path, name="net", max_steps=STEPS)
    runner = Exported(program, source, tmp_path, machine, {"time": STEPS})
    calls = [{name: array[b : b + 1] for name, array in given(ragged=ragged).items()} for b in range(BATCH)]
    for call, (code, (found,), _) in zip(calls, runner.run([(call, None) for call in calls]), strict=True):
        assert code == 0
        np.testing.assert_array_equal(found, Interpreter(program).run_all(call)[0][0], strict=True)


def test_a_product_reads_what_was_pooled_not_its_window(target: targets.Target) -> None:
    """The rows of a pooling's window were taken for those of the product behind it."""
    window = Window((2, 1), (2, 1))
    weight = np.random.default_rng(4).integers(-127, 128, (5, SIZE)).astype(np.int8)
    tensors = {"w": Tensor(weight, 8), "b": Tensor(np.zeros(5, np.int32), 32)}
    nodes = (
        Node("max_pool", ("x",), "pooled", {"channels": 7, **window.attributes()}),
        Node("linear", ("pooled",), "y", {}, {"weight": "w", "bias": "b"}),
    )
    inputs, axes = {"x": value("int8")}, after(window)
    values = inputs | {"pooled": value("int8", SIZE, axes), "y": value("int32", 5, axes)}
    program = Program("integer", inputs, ("y",), {}, values, nodes, tensors)
    program.check()
    expected, _ = Interpreter(program).run({"x": features("int8")})
    np.testing.assert_array_equal(compiled(target, program, {"x": features("int8")})[0], expected, strict=True)
