"""The Mogrifier cell compiled: here the interpreter's integers, from any state, and as its float self."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

import deploy_tvm
import irnn
from tests.support.float_reference import run_float
from tests.support.models import quantized_layer
from tests.support.random_programs import random_inputs, random_state


def test_the_compiled_step_is_the_interpreters(tmp_path: Path) -> None:
    model = quantized_layer(cell="mogrifier", rounds=3, rank=5)
    program = irnn.convert(model)
    runner = deploy_tvm.load(deploy_tvm.build(program, tmp_path / "integer"))
    for state in (None, random_state(program, 3)):
        inputs = random_inputs(program, 3, 7)
        (wanted, after), (found, last) = (one.run(inputs, state) for one in (program, runner))
        assert np.array_equal(wanted, found)
        assert all(np.array_equal(after[name], last[name]) for name in after)
    baseline = irnn.float_program(model)
    x = np.random.default_rng(0).standard_normal((2, 5, 9)).astype(np.float32)
    expected, _ = run_float(baseline, x, {name: np.zeros((2, 16), np.float32) for name in baseline.states})
    found, _ = deploy_tvm.load(deploy_tvm.build(baseline, tmp_path / "float")).run(x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
