"""ONNX models of programs in ONNX Runtime: the same integers as the interpreter, of any batch and length."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from irnn.errors import IrnnError
from irnn.export.onnx import export, models, write
from irnn.export.onnx.arrays import Array
from irnn.export.onnx.model import FORMS, IR_VERSION, OPSET
from irnn.export.onnx.ops import OnnxOps
from irnn.export.onnx.writer import Writer, value_info
from irnn.program import Program
from irnn.program.ops import INTEGER_OPS
from tests.support.golden_vectors import SPECS
from tests.support.random_graphs import random_graph, random_graph_inputs
from tests.support.random_programs import Spec, random_inputs, random_program, random_state

# Of ai.onnx, on integers; `BitShift` is for unsigned ones, `Div` truncates and stands behind a `Mod`.
OPERATORS = {
    "Abs", "Add", "Cast", "Clip", "Concat", "Div", "Expand", "Gather", "GatherND", "Identity", "LessOrEqual", "MatMul",
    "MatMulInteger", "Mod", "Mul", "Pad", "Range", "ReduceMax", "ReduceSum", "Reshape", "Scan", "Shape", "Slice", "Sub",
    "Transpose", "Unsqueeze", "Where",
}  # fmt: skip
QUIET = onnxruntime.SessionOptions()
QUIET.log_severity_level = 3
QUIET.intra_op_num_threads = 1


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), QUIET, providers=["CPUExecutionProvider"])


def run(runtime: onnxruntime.InferenceSession, program: Program, inputs: Any, state: Any) -> Any:
    if not isinstance(inputs, dict):
        inputs = {next(iter(program.inputs)): inputs}
    batch = len(next(iter(inputs.values())))
    state = program.initial_state(batch) if state is None else state
    given = {name: np.asarray(x, program.inputs[name].dtype) for name, x in inputs.items()}
    found = runtime.run(None, given | {f"state.{name}": array for name, array in state.items()})
    count = len(program.outputs)
    return found[:count], dict(zip(program.states, found[count:], strict=True))


def assert_equal(program: Program, found: Any, expected: Any) -> None:
    for name, ours, theirs in zip(program.outputs, found[0], expected[0], strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=name, strict=True)
    for name, array in expected[1].items():
        np.testing.assert_array_equal(found[1][name], array, err_msg=name, strict=True)


@pytest.mark.parametrize("name", SPECS)
def test_networks_of_any_batch_and_length(name: str) -> None:
    program = random_program(SPECS[name])
    runtime = session(models(program)[""])
    for batch, steps in ((1, 1), (3, 7)):
        inputs, state = random_inputs(program, batch, steps), random_state(program, batch)
        for start in (None, state):
            assert_equal(program, run(runtime, program, inputs, start), program.run_all(inputs, start))


@pytest.mark.parametrize("seed", range(10))
def test_random_programs_over_all_operations(seed: int) -> None:
    program = random_graph(seed)
    runtime = session(models(program)[""])
    for batch, steps in ((1, 1), (2, 5)):
        inputs, state = random_graph_inputs(program, batch, steps, seed), random_state(program, batch, seed)
        assert_equal(program, run(runtime, program, inputs, state), program.run_all(inputs, state))


def nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    found = []
    for node in graph.node:
        found.append(node)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                found += nodes(attribute.g)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_only_integer_operators_and_no_product_that_saturates(seed: int) -> None:
    (model,) = models(random_graph(seed)).values()
    found = nodes(model.graph)
    assert {node.op_type for node in found} <= OPERATORS
    assert {node.domain for node in found} == {""}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16}
    assert not {tensor.data_type for tensor in constants.values()} & floats
    types = {made: node for node in found for made in node.output}
    for node in found:
        if node.op_type != "MatMulInteger":
            continue
        x, w, x_zero, w_zero = node.input
        (to,) = (a.i for a in types[x].attribute if a.name == "to")
        assert to == onnx.TensorProto.UINT8
        assert constants[w].data_type == onnx.TensorProto.UINT8
        for zero in (x_zero, w_zero):
            assert onnx.numpy_helper.to_array(constants[zero]) == 128


def evaluated(build: Any, *arrays: np.ndarray) -> np.ndarray:
    """What a function of the namespace makes of arrays, in ONNX Runtime."""
    work = Writer()
    inputs = [Array(work, a.shape, str(a.dtype), f"x{k}") for k, a in enumerate(arrays)]
    result = build(OnnxOps(work), *inputs)
    work.named(result, "y")
    infos = [value_info(x.name, x.dtype, x.shape) for x in inputs]
    ends = [value_info("y", result.dtype, result.shape)]
    graph = helper.make_graph([*work.unpacking, *work.nodes], "g", infos, ends, work.constants)
    model = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)])
    return session(model).run(None, {f"x{k}": a for k, a in enumerate(arrays)})[0]


def test_the_root_is_floored_up_to_the_end_of_its_range() -> None:
    rng = np.random.default_rng(0)
    roots = [0, 1, 2, 3, 4, 255, 256, (1 << 31) - 1, *(1 << k for k in range(31)), *rng.integers(0, 1 << 31, 200)]
    x = np.array([max(0, int(r) ** 2 + d) for r in roots for d in (-1, 0, 1)], np.int64)
    expected = np.array([math.isqrt(int(v)) for v in x])
    np.testing.assert_array_equal(evaluated(lambda ops, v: ops.isqrt(v), x), expected)


def test_divisions_and_shifts_floor() -> None:
    a = np.array([-7, -6, -1, 0, 1, 6, 7, -(1 << 62), (1 << 62), (1 << 62) + (1 << 61)], np.int64)
    for b in (1, 2, 3, 5, 1 << 40):
        divisor = np.full_like(a, b)
        np.testing.assert_array_equal(evaluated(lambda ops, x, y: ops.floor_div(x, y), a, divisor), a // divisor)
    for n in (0, 1, 31, 61, 62):
        shift = np.full_like(a, n)
        np.testing.assert_array_equal(evaluated(lambda ops, x, y: x >> y, a, shift), a >> shift)


@pytest.mark.parametrize("value", [-128, 127])
def test_products_are_exact_at_the_ends_of_both_operands(value: int) -> None:
    """Where unsigned by signed bytes saturate on CPUs without VNNI: pairs beyond int16."""
    weight = np.full((5, 64), 127, np.int8)
    weight[1::2] = -127
    x = np.full((2, 64), value, np.int8)
    y = evaluated(lambda ops, v: ops.matmul(v, ops.weight(weight, 128)), x)
    np.testing.assert_array_equal(y, x.astype(np.int32) @ weight.T.astype(np.int32), strict=True)


@pytest.mark.parametrize(("count", "bits"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 4), (16, 4), (17, 8)])
@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_constants_of_few_values_are_packed(count: int, bits: int, dtype: type) -> None:
    """Rows and bytes do not end together; a codebook's values are no range."""
    rng = np.random.default_rng(count)
    values = rng.choice(np.arange(-128, 128), count, replace=False).astype(dtype)
    data = rng.choice(values, (37, 29))
    data.reshape(-1)[:count] = values
    x = np.zeros((37, 29), dtype)
    work = Writer()
    assert OnnxOps(work)._known(data).name
    sizes = [len(tensor.raw_data) for tensor in work.constants]
    assert max(sizes) == (-(-data.size * bits // 8) if bits < 8 else data.nbytes)
    np.testing.assert_array_equal(
        evaluated(lambda ops, v: ops.to(ops._known(data), "int32") + ops.to(v, "int32"), x), data
    )


def test_a_product_with_packed_weights() -> None:
    """Four bits, read from half a byte each, with the integers that a byte each gives."""
    rng = np.random.default_rng(3)
    weight = rng.integers(-7, 8, (40, 33)).astype(np.int8)
    x = rng.integers(-128, 128, (3, 33)).astype(np.int8)
    y = evaluated(lambda ops, v: ops.matmul(v, ops.weight(weight, 128)), x)
    np.testing.assert_array_equal(y, x.astype(np.int32) @ weight.T.astype(np.int32), strict=True)


def test_every_integer_operation_has_a_form() -> None:
    assert set(INTEGER_OPS) == FORMS


def test_what_the_model_says_of_the_program(tmp_path: Path) -> None:
    program = random_program(Spec())
    (path,) = export(program, tmp_path / "net.onnx")
    model = onnx.load(path)
    told = {entry.key: entry.value for entry in model.metadata_props}
    initial = json.loads(told["irnn.initial"])
    assert initial == {f"state.{name}": state.initial for name, state in program.states.items()}
    assert [value.name for value in model.graph.input] == [*program.inputs, *initial]
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param for dim in dims] == ["batch", "time"]


def test_refusals_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = random_program(Spec())
    with pytest.raises(IrnnError, match=r"net: a model's file ends in \.onnx"):
        write(models(program), tmp_path / "net")
    monkeypatch.setattr("irnn.export.onnx.model.FORMS", FORMS - {"pwl"})
    with pytest.raises(IrnnError, match=r"the operation pwl \(.*\) has no ONNX form") as error:
        models(program)
    assert "\n" not in str(error.value)
    monkeypatch.undo()
    monkeypatch.delattr(OnnxOps, "count_le")
    with pytest.raises(IrnnError, match=r"the operation pwl \(.*\) has no ONNX form here: .*count_le"):
        models(program)
