"""Files that the code of format version 1 wrote: they load, keep their hash and give the same integers for ever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irnn
from irnn.program import Program
from irnn.program.sets import ProgramSet
from irnn.program.storage import PROGRAM_FILE, TENSORS_FILE, program_hash
from tests.support.places import GOLDEN

FOLDER = GOLDEN / "version1"
EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
each_program = pytest.mark.parametrize("name", EXPECTED)


def arrays(record: dict[str, list], dtypes: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.array(rows, dtypes[name].dtype) for name, rows in record.items()}


def loaded(name: str) -> Program:
    program = irnn.load(FOLDER / name)
    assert type(program) is Program
    return program


@each_program
def test_a_program_gives_the_integers_of_its_day(name: str) -> None:
    program, record = loaded(name), EXPECTED[name]
    program.check()
    state = None if record["state"] is None else arrays(record["state"], program.states)
    outputs, last = program.run_all(arrays(record["inputs"], program.inputs), state)
    for found, rows in zip(outputs, record["outputs"], strict=True):
        np.testing.assert_array_equal(found, np.array(rows), err_msg=name)
    assert last.keys() == record["last_state"].keys()
    for state_name, rows in record["last_state"].items():
        np.testing.assert_array_equal(last[state_name], np.array(rows), err_msg=state_name)


@each_program
def test_a_program_keeps_its_hash(name: str) -> None:
    assert program_hash(loaded(name)) == EXPECTED[name]["hash"]


@each_program
def test_a_program_is_written_as_it_was(name: str, tmp_path: Path) -> None:
    """Byte for byte: what version 1 can express is written as version 1."""
    loaded(name).save(tmp_path / "again")
    for file in (PROGRAM_FILE, TENSORS_FILE):
        assert (tmp_path / "again" / file).read_bytes() == (FOLDER / name / file).read_bytes()


def test_the_set_is_whole() -> None:
    programs = irnn.load(FOLDER / "set")
    assert isinstance(programs, ProgramSet)
    assert list(programs) == ["encoder", "decoder"]
    assert programs.metadata == {"note": "two"}
    programs.check()


def test_the_artefact_names_the_hash_of_its_program() -> None:
    manifest = json.loads((FOLDER / "artefact" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["program_hash"] == program_hash(loaded("artefact/program"))
