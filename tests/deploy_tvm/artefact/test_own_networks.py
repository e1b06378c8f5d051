"""Networks of strangers compiled: the library gives the interpreter's integers."""

from __future__ import annotations

import numpy as np
import pytest

import deploy_tvm
import irnn
from tests.irnn.capture.test_own_networks import prepared
from tests.support.own_networks import NETWORKS, tensors


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.__name__)
def test_compiled_as_interpreted(network, tmp_path) -> None:
    program = irnn.convert(prepared(network))
    runner = deploy_tvm.load(deploy_tvm.build(program, tmp_path))
    given = [x.numpy() for x in tensors(network.example(5, 14, seed=7))]
    integers = program.quantize(given[0] if len(given) == 1 else given)
    expected, state = program.run_all(integers)
    got, after = runner.run_all(integers)
    for a, b in zip(got, expected, strict=True):
        assert np.array_equal(a, b)
    for name in state:
        assert np.array_equal(after[name], state[name])
