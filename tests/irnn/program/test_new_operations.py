"""``complement``, ``last`` and int16 operands of ``linear``: definitions, bounds, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irnn.arithmetic import fixed_point
from irnn.arithmetic.numpy_ops import NUMPY
from irnn.arithmetic.torch_ops import TORCH
from irnn.errors import IrnnError
from irnn.program import Node, Program, Tensor, Value
from irnn.program.check import ranges
from irnn.program.document import format_version
from irnn.program.interpreter import Interpreter
from tests.support.float_reference import run_float

both = pytest.mark.parametrize("ops", [NUMPY, TORCH], ids=["numpy", "torch"])


def one_node(node: Node, inputs: dict[str, Value], output: Value, tensors: dict | None = None, kind: str = "integer"):
    roles = {name: name for name in tensors or {}}
    node = Node(node.op, node.inputs, node.output, node.attributes, roles)
    return Program(kind, inputs, (node.output,), {}, inputs | {node.output: output}, (node,), tensors or {})


@both
def test_complement_mirrors_every_int8(ops: Any) -> None:
    x = np.arange(-128, 128, dtype=np.int8)
    y = np.asarray(fixed_point.complement(ops, ops.constant(x)))
    np.testing.assert_array_equal(y, x[::-1], strict=True)
    primed = x.astype(int) + 128
    np.testing.assert_array_equal(y.astype(int) + 128, 255 - primed)


def complement(dtype: str, low: int, high: int) -> Program:
    return one_node(Node("complement", ("x",), "y"), {"x": Value(dtype, (2,), low=low, high=high)}, Value("int8", (2,)))


def test_the_range_of_complement_is_the_inputs_mirrored() -> None:
    program = complement("int8", -128, 5)
    program.check()
    assert ranges(program)["y"] == (-6, 127)
    with pytest.raises(IrnnError, match="complement y reads x, which is not int8"):
        complement("int16", -5, 5).check()


def last(*, with_lengths: bool, axes: tuple[str, ...] = ("time",), kind: str = "integer") -> Program:
    dtype = "int16" if kind == "integer" else "float32"
    inputs = {"x": Value(dtype, (2,), low=-100, high=200, axes=axes)}
    if with_lengths:
        inputs["lengths"] = Value("int32", (), low=1, high=9, axes=(), counts="time")
    return one_node(Node("last", tuple(inputs), "y"), inputs, Value(dtype, (2,), axes=()), kind=kind)


@both
def test_last_is_the_last_valid_step(ops: Any) -> None:
    x = np.arange(24, dtype=np.int16).reshape(3, 4, 2)
    program = last(with_lengths=True)
    program.check()
    assert ranges(program)["y"] == (-100, 200)
    inputs = {"x": x, "lengths": np.array([4, 1, 3], np.int32)}
    (y,), _ = Interpreter(program, ops).run_all(inputs)
    np.testing.assert_array_equal(np.asarray(y), np.stack([x[0, 3], x[1, 0], x[2, 2]]), strict=True)
    (y,), _ = Interpreter(last(with_lengths=False), ops).run_all(x)
    np.testing.assert_array_equal(np.asarray(y), x[:, -1], strict=True)


def test_one_step_of_a_program_that_ends_in_last_has_no_time_axis() -> None:
    program = last(with_lengths=False)
    x = np.arange(6, dtype=np.int16).reshape(3, 2)
    y, _ = program.step(x)
    np.testing.assert_array_equal(y, x, strict=True)
    assert program.streaming


def test_last_reads_a_sequence_and_lengths_within_it() -> None:
    with pytest.raises(IrnnError, match="last y reads x, which is no sequence over time"):
        last(with_lengths=False, axes=("memory",)).check()
    program = last(with_lengths=True)
    program.inputs["lengths"] = Value("int32", (), low=0, high=9, axes=(), counts="time")
    with pytest.raises(IrnnError, match=r"y: the lengths lengths can leave 1\.\.65536"):
        program.check()


def test_both_have_float_twins() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 2)).astype(np.float32)
    y, _ = run_float(last(with_lengths=False, kind="float"), x, {})
    np.testing.assert_array_equal(y, x[:, -1])
    value = Value("float32", (2,))
    y, _ = run_float(one_node(Node("complement", ("x",), "y"), {"x": value}, value, kind="float"), x, {})
    np.testing.assert_array_equal(y, 1 - x)


def linear(columns: int, weight: int, dtype: str = "int16", low: int = -32768, high: int = 32767) -> Program:
    tensors = {
        "weight": Tensor(np.full((2, columns), weight, np.int8), 8),
        "bias": Tensor(np.array([5, -7], np.int32), 32),
    }
    inputs = {"x": Value(dtype, (columns,), low=low, high=high)}
    return one_node(Node("linear", ("x",), "y"), inputs, Value("int32", (2,)), tensors)


@both
@pytest.mark.parametrize("value", [-32768, 32767])
def test_int16_operands_are_exact_up_to_the_bound(ops: Any, value: int) -> None:
    """515 terms of 127 * 32768 are the most that fit; odd sums beyond 2**24 need more than a float32 holds."""
    columns = 515
    program = linear(columns, 127)
    program.check()
    x = np.full((1, 1, columns), value, np.int16)
    x[0, 0, 0] = 1
    (y,), _ = Interpreter(program, ops).run_all(x)
    total = 127 * ((columns - 1) * value + 1)
    assert np.asarray(y).tolist() == [[[total + 5, total - 7]]]


def test_an_accumulator_that_may_overflow_is_refused() -> None:
    with pytest.raises(IrnnError, match="linear y could overflow int32 in row 1"):
        linear(517, 127).check()
    linear(517, 127, low=-2048, high=2047).check()  # 12 bits fit
    with pytest.raises(IrnnError, match="linear y reads x, which is not int8 or int16"):
        linear(3, 1, dtype="int32").check()


def test_version_1_knows_none_of_them() -> None:
    assert format_version(complement("int8", -128, 127)) == 2
    assert format_version(last(with_lengths=False)) == 2
    assert format_version(linear(3, 1)) == 2
    assert format_version(linear(3, 1, dtype="int8", low=-128, high=127)) == 1
