"""ONNX models of trained networks' programs: 2,000 steps of each kind in ONNX Runtime, no integer differs."""

from __future__ import annotations

import pytest

from irnn.export.onnx import models
from tests.irnn.export.test_c99_machines import NETWORKS, network
from tests.irnn.export.test_onnx import assert_equal, run, session

QUICK = ("language_model", "gru")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else (pytest.mark.slow,)) for name in NETWORKS]
)
def test_two_thousand_steps(name: str) -> None:
    program, pieces = network(name)
    runtime, state = session(models(program)[""]), None
    for inputs, expected in pieces:
        found = run(runtime, program, inputs, state)
        assert_equal(program, found, expected)
        state = found[1]
