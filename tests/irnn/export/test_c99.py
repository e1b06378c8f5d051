"""C99 of programs, compiled under the sanitizers: the same integers as the interpreter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from irnn.errors import IrnnError
from irnn.export.c99 import export, sources
from irnn.export.c99.ops import COps
from irnn.export.c99.schedule import KNOWN
from irnn.program import Program
from irnn.program.ops import INTEGER_OPS
from tests.support.c99 import MACHINES, Exported, Machine
from tests.support.golden_vectors import SPECS
from tests.support.random_graphs import random_graph, random_graph_inputs
from tests.support.random_programs import Spec, random_inputs, random_program, random_state

SIZES = {"time": 12, "memory": 9}


def exported(program: Program, folder: Path, machine: Machine, sizes: Mapping[str, int], **limits: int) -> Exported:
    (source,) = export(program, folder, name="net", **limits)
    return Exported(program, source, folder, machine, sizes)


def assert_equal(program: Program, found, expected) -> None:
    code, outputs, state = found
    assert code == 0
    for name, ours, theirs in zip(program.outputs, outputs, expected[0], strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=name, strict=True)
    for name, array in expected[1].items():
        np.testing.assert_array_equal(state[name], array, err_msg=name, strict=True)


@pytest.mark.parametrize("name", SPECS)
def test_networks_stream_step_by_step_and_in_sequences(name: str, tmp_path: Path) -> None:
    program = random_program(SPECS[name])
    limits = {} if program.streaming else {"max_steps": 20}
    compiled = exported(program, tmp_path, MACHINES["gcc"], {"time": 20}, **limits)
    (key,) = program.inputs
    tokens = random_inputs(program, 1, 29)
    start = random_state(program, 1)
    chunks = [tokens[:, :1], tokens[:, 1:2], tokens[:, 2:9], tokens[:, 9:]]
    calls = [({key: chunk}, None) for chunk in chunks] + [({key: chunks[-1]}, start)]
    found = compiled.run(calls)
    state = None
    for chunk, result in zip(chunks, found, strict=False):
        expected = program.run_all(chunk, state)
        assert_equal(program, result, expected)
        state = expected[1]
    assert_equal(program, found[-1], program.run_all(chunks[-1], start))


@pytest.mark.parametrize("seed", range(10))
def test_random_programs_over_all_operations(seed: int, tmp_path: Path) -> None:
    program = random_graph(seed)
    compiled = exported(program, tmp_path, MACHINES["gcc"], SIZES, **needed(program, SIZES))
    calls = []
    for k, steps in enumerate((1, 2, 5, 12)):
        inputs = random_graph_inputs(program, 1, steps, seed + k)
        calls.append((inputs, random_state(program, 1, seed + k)))
    for (inputs, state), result in zip(calls, compiled.run(calls), strict=True):
        assert_equal(program, result, program.run_all(inputs, state))


def needed(program: Program, sizes: Mapping[str, int]) -> dict[str, int]:
    """The limits that the program asks for, which refuses others."""
    axes = {"max_steps": "time", "max_memory": "memory"}
    given: dict[str, int] = {}
    for _ in range(3):
        try:
            sources(program, "net", {axes[key]: limit for key, limit in given.items()})
        except IrnnError as error:
            key = str(error).partition(":")[0]
            given[key] = sizes[axes[key]]
        else:
            return given
    raise AssertionError(given)


def test_every_integer_operation_has_a_form() -> None:
    assert set(INTEGER_OPS) == KNOWN


def test_refusals_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    streaming, both_ways = random_program(Spec()), random_program(Spec(bidirectional=True))
    for program, limits, message in (
        (both_ways, {}, "max_steps: the sequence .* is kept for a whole call; give the most"),
        (streaming, {"time": 9}, "max_steps=9: nothing is kept for a whole call along time; leave it out"),
        (both_ways, {"time": 0}, "max_steps=0: a call has at least one"),
        (both_ways, {"time": 1 << 31}, "lower the limits of a call"),
    ):
        with pytest.raises(IrnnError, match=message) as error:
            sources(program, "net", limits)
        assert "\n" not in str(error.value)
    monkeypatch.setattr("irnn.export.c99.schedule.KNOWN", KNOWN - {"pwl"})
    with pytest.raises(IrnnError, match=r"the operation pwl \(.*\) has no C99 form; those that have one are add, "):
        sources(streaming, "net", {})
    monkeypatch.undo()
    monkeypatch.delattr(COps, "count_le")
    with pytest.raises(IrnnError, match=r"the operation pwl \(.*\) has no C99 form here: .*count_le"):
        sources(streaming, "net", {})


def test_a_call_refuses_what_the_proof_does_not_cover(tmp_path: Path) -> None:
    program = random_program(Spec(bidirectional=True))
    (key,) = program.inputs
    compiled = exported(program, tmp_path, MACHINES["gcc"], {"time": 9}, max_steps=8)
    good = np.zeros((1, 3), np.int32)
    low, high, long = good - 1, good + program.inputs[key].high + 1, np.zeros((1, 9), np.int32)
    found = compiled.run([({key: x}, None) for x in (good, low, high, long, good)])
    assert [code for code, _, _ in found] == [0, 2, 2, 1, 0]
    for _, _, state in found[1:4]:
        for name, array in found[0][2].items():
            np.testing.assert_array_equal(state[name], array, err_msg=name)
    assert_equal(program, found[4], program.run_all(good, found[0][2]))
