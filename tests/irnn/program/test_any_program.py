"""Random programs over all operations: interpreter, on both namespaces, and stored copy equal the evaluator."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import irnn
from irnn.arithmetic.numpy_ops import NUMPY
from irnn.arithmetic.torch_ops import TORCH
from irnn.program import Program, Scan
from irnn.program.check import ranges
from irnn.program.interpreter import Interpreter
from irnn.program.ops import INTEGER_OPS
from irnn.program.storage import program_hash
from tests.support.places import ROOT
from tests.support.program_oracle import ProgramOracle
from tests.support.random_graphs import random_graph, random_graph_inputs
from tests.support.random_parts import WEIGHT_ENCODINGS
from tests.support.random_programs import random_state
from tests.support.strategies import quick

Results = tuple[list[np.ndarray], dict[str, np.ndarray]]


def run(program: Program, ops: Any, inputs: dict[str, np.ndarray], state: Any) -> Results:
    outputs, last = Interpreter(program, ops).run_all(inputs, state)
    return [np.asarray(y) for y in outputs], {name: np.asarray(array) for name, array in last.items()}


def assert_equal(program: Program, found: Results, expected: Results) -> None:
    for name, ours, theirs in zip(program.outputs, found[0], expected[0], strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=name, strict=True)
    assert found[1].keys() == expected[1].keys()
    for name, array in expected[1].items():
        np.testing.assert_array_equal(found[1][name], array, err_msg=name, strict=True)


@quick
@given(seed=st.integers(0, 10**6), batch=st.integers(1, 3), steps=st.integers(1, 5), fresh=st.booleans())
def test_random_programs_equal_the_evaluator(seed: int, batch: int, steps: int, fresh: bool) -> None:
    program = random_graph(seed)
    inputs = random_graph_inputs(program, batch, steps, seed)
    state = None if fresh else random_state(program, batch, seed)
    expected = ProgramOracle(program).run_batch(inputs, state)
    for ops in (NUMPY, TORCH):
        assert_equal(program, run(program, ops, inputs, state), expected)
    reach = ranges(program)
    for name, array in zip(program.outputs, expected[0], strict=True):
        assert reach[name][0] <= array.min()
        assert array.max() <= reach[name][1]


@pytest.mark.parametrize("seed", range(6))
def test_stored_programs_load_equal(seed: int, tmp_path: Path) -> None:
    program = random_graph(seed)
    program.save(tmp_path / "p")
    loaded = irnn.load(tmp_path / "p")
    assert (loaded.nodes, loaded.values, loaded.states) == (program.nodes, program.values, program.states)
    for name, tensor in program.tensors.items():
        np.testing.assert_array_equal(loaded.tensors[name].data, tensor.data, err_msg=name, strict=True)
        assert (loaded.tensors[name].bits, loaded.tensors[name].encoding) == (tensor.bits, tensor.encoding)
    assert program_hash(loaded) == program_hash(program)
    inputs = random_graph_inputs(program, 2, 3)
    assert_equal(loaded, run(loaded, NUMPY, inputs, None), run(program, NUMPY, inputs, None))


def test_the_draw_covers_every_operation_and_encoding() -> None:
    programs = [random_graph(seed) for seed in range(24)]
    nodes = [(program, node) for program in programs for node in program.walk()]
    assert {node.op for _, node in nodes} == set(INTEGER_OPS)
    encodings = {tensor.encoding for program in programs for tensor in program.tensors.values()}
    assert set(WEIGHT_ENCODINGS) <= encodings
    operands = {program.values[node.inputs[0]].dtype for program, node in nodes if node.op == "linear"}
    assert operands == {"int8", "int16"}
    for op in ("last", "time_mean", "time_max"):
        assert {len(node.inputs) for _, node in nodes if node.op == op} == {1, 2}
    scans = [item for program in programs for item in program.nodes if isinstance(item, Scan)]
    assert {len(scan.starts) for scan in scans} == {0, 1, 2}
    assert {len(scan.finals) for scan in scans} == {2}
    assert {"offset" in node.attributes for _, node in nodes if node.op == "shorten"} == {True, False}
    assert {"padding" in node.attributes for _, node in nodes if node.op == "patches"} == {True, False}
    assert any(program.fewest for program in programs)


@pytest.mark.parametrize("file", ["oracle.py", "program_oracle.py"])
def test_the_evaluators_know_only_plain_data(file: str) -> None:
    tree = ast.parse((ROOT / "tests" / "support" / file).read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    own = {name for name in imported if name.startswith(("irnn", "deploy_tvm", "pipelines", "tests"))}
    assert own <= {"irnn.program.graph", "tests.support.oracle"}
