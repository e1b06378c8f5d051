"""``top``, and programs whose output is the best of their logits: by sorting, with ties to the lower id."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import irnn
from irnn.arithmetic import fixed_point
from irnn.arithmetic.numpy_ops import NUMPY
from irnn.arithmetic.torch_ops import TORCH
from irnn.errors import IrnnError
from irnn.program import Node, Program, Value
from irnn.program.check import ranges
from irnn.program.document import format_version
from tests.support.models import ids, language_model, quantized, quantized_layer


def by_sorting(row: list[int], count: int) -> list[int]:
    """Values, then places, in Python's integers."""
    places = sorted(range(len(row)), key=lambda k: (-row[k], k))[:count]
    return [row[k] for k in places] + places


@pytest.mark.parametrize("ops", [NUMPY, TORCH], ids=["numpy", "torch"])
@pytest.mark.parametrize("count", [1, 4, 9])
def test_by_sorting(ops: Any, count: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 3, (40, 9)).astype(np.int32)
    x[::4, :5] = rng.choice([fixed_point.INT32_MIN, fixed_point.INT32_MAX], (10, 5))
    x[1] = fixed_point.INT32_MIN
    found = np.concatenate([np.asarray(part) for part in fixed_point.top(ops, ops.constant(x), count)], -1)
    np.testing.assert_array_equal(found, np.array([by_sorting(row, count) for row in x.tolist()], np.int32))
    assert found.dtype == np.int32


def alone(count: int, value: Value) -> Program:
    values = {"x": value, "y": Value("int32", (2 * count,))}
    return Program("integer", {"x": value}, ("y",), {}, values, (Node("top", ("x",), "y", {"count": count}),), {})


def test_its_range_is_proved() -> None:
    program = alone(3, Value("int32", (5,), low=-7, high=2))
    program.check()
    assert ranges(program)["y"] == (-7, 4)
    assert format_version(program) == 2
    for bad, message in (
        (alone(6, Value("int32", (5,), low=0, high=1)), "top y: the 6 largest of 5 elements; allowed are 1 to 5"),
        (alone(0, Value("int32", (5,), low=0, high=1)), "top y: the 0 largest of 5 elements"),
        (alone(1, Value("int8", (5,), low=0, high=1)), "top y reads x, which is not int32"),
    ):
        with pytest.raises(IrnnError, match=message):
            bad.check()


def test_a_program_gives_its_best_logits(tmp_path: Any) -> None:
    program = irnn.convert(quantized(language_model(size=10)))
    tokens = ids(2, 5).numpy()
    logits, state = program.run(tokens)
    best = program.top(3)
    best.check()
    best.save(tmp_path / "best")
    for one in (best, irnn.load(tmp_path / "best")):
        (values, places), after = one.run_all(tokens)
        wanted = np.array([[by_sorting(row, 3) for row in rows] for rows in logits.tolist()])
        assert np.array_equal(np.concatenate([values, places], -1), wanted)
        assert all(np.array_equal(after[name], state[name]) for name in state)
    assert best.logits_scale == program.logits_scale
    assert len(program.outputs) == 1, "the program itself is as it was"
    (step, _), _ = best.step_all(tokens[:, 0])
    assert np.array_equal(step, values[:, 0])


@pytest.mark.parametrize("count", [0, 61, -1, 2.0, True, "3"])
def test_a_count_that_is_none_is_one_line(count: Any) -> None:
    program = irnn.convert(quantized(language_model(size=10)))
    with pytest.raises(IrnnError, match=r"^top .*: take a whole number from 1 to 60, the number of logits$"):
        program.top(count)


def test_a_program_without_logits_is_refused() -> None:
    torch.manual_seed(0)
    model = language_model(size=10)
    program = irnn.convert(quantized(model))
    with pytest.raises(IrnnError, match="the program has 2 outputs; top takes one of one output, its logits"):
        program.top(2).top(2)
    with pytest.raises(IrnnError, match="a float program has no top"):
        irnn.float_program(model).top(2)
    with pytest.raises(IrnnError, match=r"is int8 \[16\]; top takes int32 logits"):
        irnn.convert(quantized_layer()).top(2)
