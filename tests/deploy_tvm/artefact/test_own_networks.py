"""Networks of strangers compiled: the library gives the interpreter's integers."""

from __future__ import annotations

import numpy as np
import pytest

import deploy_tvm
import irnn
from examples.own_networks import NETWORKS
from tests.irnn.capture.test_own_networks import prepared


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.__name__)
def test_compiled_as_interpreted(network, tmp_path) -> None:
    model = prepared(network)
    program = irnn.convert(model)
    runner = deploy_tvm.load(deploy_tvm.build(program, tmp_path))
    arguments = irnn.wiring_of(model).program_arguments(program, *network.example(5, 14, seed=7))
    expected, state = program.run_all(*arguments)
    got, after = runner.run_all(*arguments)
    for a, b in zip(got, expected, strict=True):
        assert np.array_equal(a, b)
    for name in state:
        assert np.array_equal(after[name], state[name])
