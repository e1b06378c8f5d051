"""What a compiled program is compared with: how many steps a call has."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

from deploy_tvm.artefact.golden import Golden, steps_of
from irnn.program import Program, Value


def program(**inputs: Value) -> Program:
    """One that takes ``inputs`` and computes nothing."""
    return Program("integer", inputs, tuple(inputs), {}, dict(inputs), (), {})


def test_steps_are_those_of_the_first_input_along_time() -> None:
    """Not of a memory or of lengths; a call of a program that has no time is one step."""
    features = Value("int8", (3,), low=-128, high=127, axes=("time",))
    memory = Value("int8", (3,), low=-128, high=127, axes=("memory",))
    one = Value("int8", (3,), low=-128, high=127, axes=())
    lengths = Value("int32", (), low=1, high=9, axes=(), counts="time")
    x, m = np.zeros((2, 5, 3), np.int8), np.zeros((2, 9, 3), np.int8)
    given = {"lengths": np.full(2, 4, np.int32), "m": m, "x": x, "one": x[:, 0]}
    assert steps_of(program(lengths=lengths, m=memory, x=features), given) == 5
    assert steps_of(program(m=memory, one=one), given) == 1
    assert steps_of(program(one=one), given) == 1
    assert Golden(program(one=one, x=features), given, [], {}).steps == 5
