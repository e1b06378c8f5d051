"""What messages call an argument: the library by its own name, a front end by the key that its user gives."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from irnn.errors import IrnnError, arguments_of
from tests.support.places import ROOT

LIBRARY = ROOT / "irnn"
# A key of the front end's configuration; a module's name has a dot before its room.
KEY = re.compile(r"(?<![\w./])(data|model|quant|pwl|recipe|problem|evaluation|trainer)\.(?!(?:md|png)\b)(\{|[a-z_]+)")


@dataclass(frozen=True)
class Settings:
    dir: str
    units: str
    max_seconds: float


def renamed(text: str, prefix: str = "data.") -> str:
    with pytest.raises(IrnnError) as caught, arguments_of(Settings, prefix):
        raise IrnnError(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("library", "front_end"),
    [
        ("dir=/x is no folder", "data.dir=/x is no folder"),
        ("`dir` is not set; add dir=FOLDER", "data.dir is not set; add data.dir=FOLDER"),
        ("units.size=9: too few; more than max_seconds=2", "data.units.size=9: too few; more than data.max_seconds=2"),
        ("/a/dir=x and --dir=y and my_dir=z", "/a/dir=x and --dir=y and my_dir=z"),
        ("the dir of units", "the dir of units"),
        ("speech.dir=/x", "speech.dir=/x"),
    ],
)
def test_arguments_get_their_prefix(library: str, front_end: str) -> None:
    assert renamed(library) == front_end


def test_what_has_a_prefix_keeps_it() -> None:
    with (
        pytest.raises(IrnnError, match=r"^data\.speech\.dir=/x: see data\.units=y$"),
        arguments_of(Settings, "data."),
        arguments_of(Settings, "data.speech."),
    ):
        raise IrnnError("dir=/x: see data.units=y")


def test_what_is_another_error_passes_and_a_cause_stays() -> None:
    with pytest.raises(KeyError, match="dir="), arguments_of(Settings, "data."):
        raise KeyError("dir=1")
    with pytest.raises(IrnnError) as caught, arguments_of(Settings, "data."):
        raise IrnnError("dir=1") from OSError("disk")
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("path", sorted(LIBRARY.rglob("*.py")), ids=lambda path: str(path.relative_to(LIBRARY)))
def test_the_library_speaks_no_key_of_the_front_end(path: Path) -> None:
    """Names in the text of a string, f-strings' too; neither what its braces compute nor docstrings."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    texts = [
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    ]
    assert [found[0] for text in texts for found in KEY.finditer(text)] == []
