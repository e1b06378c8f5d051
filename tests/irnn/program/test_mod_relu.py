"""``mod_relu``: its proof, and what it refuses; its evaluation is that of the random programs."""

from __future__ import annotations

import numpy as np
import pytest

from irnn.errors import IrnnError
from irnn.program import Node, Program, Tensor, Value
from irnn.program.check import ranges
from irnn.program.document import format_version


def program(bias: list[int], x: Value, low: int = -100, high: int = 90, dtype: str = "int16") -> Program:
    values = {"x": x, "y": Value(dtype, x.shape)}
    node = Node("mod_relu", ("x",), "y", {"low": low, "high": high}, {"bias": "bias"})
    tensors = {"bias": Tensor(np.array(bias, np.int32), 32)}
    return Program("integer", {"x": x}, ("y",), {}, values, (node,), tensors)


@pytest.mark.parametrize(
    ("bias", "low", "high", "expected"),
    [
        ([-3, 2], -5, 7, (-9, 9)),  # the largest magnitude is 7, of either sign
        ([-9, -8], -5, 7, (0, 0)),
        ([500, 0], -5, 7, (-100, 90)),
        ([4, 4], 0, 7, (0, 11)),
    ],
)
def test_the_proved_range_holds_every_value(bias: list[int], low: int, high: int, expected: tuple[int, int]) -> None:
    made = program(bias, Value("int16", (2,), low=low, high=high))
    made.check()
    assert ranges(made)["y"] == expected
    assert format_version(made) == 2
    x = np.repeat(np.arange(low, high + 1, dtype=np.int16)[None, :, None], 2, axis=2)
    y, _ = made.run(x)
    assert expected[0] <= y.min()
    assert y.max() <= expected[1]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (program([1], Value("int16", (2,), low=-5, high=5)), "mod_relu y: x has 2 elements, its bias 1"),
        (program([1, 1 << 30], Value("int16", (2,), low=-5, high=5)), r"bias: a bias of mod_relu must lie within"),
        (program([1, 1], Value("int32", (2,), low=-5, high=5)), "mod_relu y reads x, which is not int8 or int16"),
        (
            program([1, 1], Value("int8", (2,), 0.1, 3, low=-5, high=5)),
            "mod_relu y reads x, which has the zero point 3",
        ),
        (program([1, 1], Value("int16", (2,), low=-5, high=5), low=1), r"saturates to 1\.\.90, which leaves out 0"),
    ],
)
def test_what_it_cannot_prove_is_refused(made: Program, message: str) -> None:
    with pytest.raises(IrnnError, match=message):
        made.check()
