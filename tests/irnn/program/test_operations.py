"""The registry of operations: nothing without a proof, one list for everybody, documentation that is its own."""

from __future__ import annotations

import ast
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irnn
from irnn.errors import IrnnError
from irnn.program import Node, ops
from irnn.program.check import check
from irnn.program.interpreter import Interpreter
from irnn.program.ops import FLOAT_OPS, INTEGER_OPS, OPS, Operation, Registry
from irnn.program.ops.base import VERSION_1
from tests.support.places import ROOT
from tests.support.random_programs import Spec, random_program


def test_an_operation_without_a_range_proof_cannot_be_registered() -> None:
    class Unproved(Operation):
        name, documentation = "unproved", "x -> x"

        def apply(self, ops: Any, node: Node, inputs: list, tensors: dict, dtype: str) -> Any:
            return inputs[0]

    with pytest.raises(TypeError, match=r"abstract method.* range"):
        Registry([Unproved()])


def test_an_operation_without_an_evaluation_cannot_be_registered() -> None:
    class Unevaluated(Operation):
        name, documentation = "unevaluated", "x -> x"

        def range(self, node: Node, inputs: list, tensors: dict) -> Any:
            return inputs[0].range, []

    with pytest.raises(TypeError, match=r"abstract method.* apply"):
        Registry([Unevaluated()])


def test_two_operations_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two operations are called 'add'"):
        Registry([OPS["add"], OPS["add"]])


def test_every_operation_is_documented_and_exists_somewhere() -> None:
    for name, operation in OPS.items():
        assert operation.documentation, name
        assert (name in INTEGER_OPS) or (name in FLOAT_OPS), name
        assert "\n" not in operation.documentation


def test_what_version_1_does_not_know_is_version_2() -> None:
    later = {name for name in OPS if name not in VERSION_1}
    assert {"complement", "last"} <= later
    assert set(OPS) - later == VERSION_1
    node = Node("any", ("x",), "y")
    values = {"x": random_program(Spec()).values["embedded"]}
    assert {name for name, operation in OPS.items() if operation.format_version(node, values) == 2} == later


def test_every_file_of_an_operation_is_registered() -> None:
    files = {path.stem for path in Path(inspect.getfile(ops)).parent.glob("*.py")} - {"__init__", "base", "constants"}
    assert {type(operation).__module__.rpartition(".")[2] for operation in OPS.values()} == files


def test_the_page_holds_the_table_of_the_registry() -> None:
    assert ops.table() in (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def unknown(kind: str = "integer") -> irnn.Program:
    program = random_program(Spec(kind=kind))
    return replace(program, nodes=(replace(program.nodes[0], op="convolve"), *program.nodes[1:]))


KNOWN = r"unknown operation 'convolve'.*known are embedding, linear, .*tanh"


def test_an_unknown_operation_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    program = unknown()
    for refuse in (program.check, lambda: Interpreter(program), program.describe, lambda: program.save(tmp_path / "p")):
        with pytest.raises(IrnnError, match=KNOWN) as error:
            refuse()
        assert "\n" not in str(error.value)


def test_an_unknown_operation_on_disk_is_refused_with_the_known_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OPS, "convolve", OPS["embedding"])
    unknown().save(tmp_path / "p")
    monkeypatch.undo()
    with pytest.raises(IrnnError, match=KNOWN):
        irnn.load(tmp_path / "p")


def test_float_operations_have_no_proof() -> None:
    program = random_program(Spec())
    relu = Node("relu", (program.outputs[0],), "relu")
    broken = replace(
        program, nodes=(*program.nodes, relu), values=program.values | {"relu": program.values["logits.acc"]}
    )
    with pytest.raises(IrnnError, match=r"operation relu \(relu\) is not integer"):
        check(broken)


FLOORS = (
    "irnn.program.axes", "irnn.program.windows", "irnn.program.encodings", "irnn.program.graph", "irnn.program.ops",
    "irnn.program.check", "irnn.program.interpreter", "irnn.program.listing", "irnn.program.document",
    "irnn.program.real", "irnn.program.top", "irnn.program.program", "irnn.program.sets", "irnn.program.storage",
)  # fmt: skip


def floor(module: str) -> int:
    return next(k for k, name in enumerate(FLOORS) if module == name or module.startswith(f"{name}."))


@pytest.mark.parametrize("module", FLOORS)
def test_a_floor_of_the_program_imports_only_those_below(module: str) -> None:
    """Imports inside of functions included."""
    place = ROOT / module.replace(".", "/")
    for path in sorted(place.glob("*.py")) if place.is_dir() else [place.with_suffix(".py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.ImportFrom) and node.module == "irnn.program":
                names = [f"irnn.program.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                assert name.partition(".")[0] not in ("torch", "tvm", "hydra"), f"{path} imports {name}"
                if name.startswith("irnn.program"):
                    below, own = floor(name), floor(module)
                    assert below < own or (below == own and module.endswith(".ops")), f"{path} imports {name}"


def test_a_program_is_the_graph_with_its_behaviour() -> None:
    program = random_program(Spec())
    assert isinstance(program, irnn.Program)
    logits, _ = program.run(np.zeros((1, 2), int))
    assert logits.shape == (1, 2, 23)
