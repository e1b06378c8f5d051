"""The committed golden vectors: what the interpreter gives, on both namespaces, and what the oracle gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irnn.arithmetic.numpy_ops import NUMPY
from irnn.arithmetic.torch_ops import TORCH
from irnn.program import Program
from irnn.program.interpreter import Interpreter
from tests.support.golden_vectors import SPECS, from_json, to_json, vectors
from tests.support.places import GOLDEN
from tests.support.random_programs import Spec, random_program

FILES = sorted(GOLDEN.glob("*.json"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def read(path: Path) -> tuple[Program, list[dict[str, Any]]]:
    record = json.loads(path.read_text(encoding="utf-8"))
    return from_json(record["program"]), record["vectors"]


def compare(name: str, actual: np.ndarray, expected: list) -> None:
    """Fail with the first mismatches: index, actual, expected."""
    wanted = np.array(expected)
    assert actual.shape == wanted.shape, f"{name}: shape {actual.shape}, expected {wanted.shape}"
    wrong = np.argwhere(actual != wanted)
    if len(wrong):
        lines = [
            f"  {name}{list(map(int, i))}: actual {actual[tuple(i)]}, expected {wanted[tuple(i)]}" for i in wrong[:10]
        ]
        pytest.fail(f"{len(wrong)} of {actual.size} integers differ\n" + "\n".join(lines), pytrace=False)


def test_every_specified_file_is_committed() -> None:
    assert {path.stem for path in FILES} == set(SPECS)


@each_file
@pytest.mark.parametrize("ops", [NUMPY, TORCH], ids=["numpy", "torch"])
def test_interpreter_gives_the_golden_vectors(ops: Any, path: Path) -> None:
    program, records = read(path)
    dtypes = {name: state.dtype for name, state in program.states.items()}
    dtype = program.inputs[next(iter(program.inputs))].dtype
    for record in records:
        state = record["state"]
        if state is not None:
            state = {name: np.array(rows, dtypes[name]) for name, rows in state.items()}
        output, last = Interpreter(program, ops).run(np.array(record["inputs"], dtype), state)
        compare("output", np.asarray(output), record["output"])
        for name, rows in record["last_state"].items():
            compare(name, np.asarray(last[name]), rows)


@each_file
def test_oracle_still_gives_the_golden_vectors(path: Path) -> None:
    program, records = read(path)
    dtypes = {name: state.dtype for name, state in program.states.items()}
    state = {name: np.array(rows, dtypes[name]) for name, rows in records[1]["state"].items()}
    assert vectors(program, np.array(records[0]["inputs"]), state) == records


def test_mismatches_are_shown_by_index() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"1 of 4 .*\n  output\[1, 0\]: actual 3, expected 7"):
        compare("output", np.array([[1, 2], [3, 4]]), [[1, 2], [7, 4]])


def test_json_keeps_the_program() -> None:
    program = random_program(Spec(norm="mad", bidirectional=True))
    record = json.loads(json.dumps(to_json(program)))
    again = from_json(record)
    assert (again.nodes, again.values, again.states) == (program.nodes, program.values, program.states)
    assert again.inputs == program.inputs
    for name, tensor in program.tensors.items():
        np.testing.assert_array_equal(again.tensors[name].data, tensor.data, strict=True)
        assert again.tensors[name].bits == tensor.bits
