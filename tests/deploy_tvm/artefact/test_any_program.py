"""Random programs over all operations, compiled: the same integers on every kernel set that this machine can run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.random_graphs import random_graph, random_graph_inputs
from tests.support.random_programs import random_state

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

import deploy_tvm
from irnn.program.equality import Comparison, compare, named
from tests.support.cpus import CPUS, best, runnable

# The largest two on the set that this machine takes by itself; on the others after them.
LARGE = (1, 2)
CASES = [
    pytest.param(seed, cpu, marks=pytest.mark.slow if seed in LARGE and cpu != best() else ())
    for seed in range(4)
    for cpu in CPUS
]


@pytest.mark.parametrize(("seed", "cpu"), CASES)
def test_compiled_programs_equal_the_interpreter(seed: int, cpu: str, tmp_path: Path) -> None:
    target, program = runnable(cpu), random_graph(seed)
    runner = deploy_tvm.load(deploy_tvm.build(program, tmp_path / "artefact", target))
    found = Comparison()
    for batch, steps in ((1, 1), (2, 4), (3, 7)):
        inputs, state = random_graph_inputs(program, batch, steps, seed), random_state(program, batch, seed)
        outputs, last = runner.run_all(inputs, state)
        ours = named(program, [np.array(y) for y in outputs], last)
        found += compare("the compiled program", ours, named(program, *program.run_all(inputs, state)))
    assert found.count == 0, str(found)
    assert found.compared > 100
