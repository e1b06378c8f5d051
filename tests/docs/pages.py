"""The commands that the project's pages show: README, docs, the docstrings of modules, the comments of ``conf``."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from tests.support.places import ROOT

PROGRAMS = ("python", "make", "pip", "apt-get", "tar")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(`+)(?=\S)(.+?)(?<=\S)\1", re.DOTALL)
# An indented block after "::" in a docstring.
_LITERAL = re.compile(r"::\n\n((?:(?:    .*)?\n)+)")
_COMMENT = re.compile(r"\s+#\s.*$")
# The names of folders on the pages that only say what is in them.
_FOLDER = re.compile(r"FOLDER_WITH_\w+|(?<==)(?:LIBRISPEECH|FSDD|TEXT)\b")
_COMMAND = re.compile(rf"(?:{'|'.join(PROGRAMS)})\s+\S")


def commands() -> dict[str, list[str]]:
    """Every command, in one line without its comment, and the pages that show it."""
    found: dict[str, list[str]] = {}
    for page, text in _texts():
        for command in _commands(text):
            found.setdefault(command, []).append(page)
    return found


def python_blocks() -> dict[str, str]:
    """The code blocks of Python by the page that shows them, one at most, and the one in the library's docstring."""
    found = {}
    for page in _markdown():
        bodies = [body for language, body in _FENCE.findall(page.read_text(encoding="utf-8")) if language == "python"]
        if bodies:
            (found[page.name],) = bodies
    (block,) = _LITERAL.findall(dict(_docstrings())["irnn/__init__.py"] + "\n")
    return found | {"irnn/__init__.py": textwrap.dedent(block)}


def _docstrings() -> Iterator[tuple[str, str]]:
    """(path, docstring) of every module."""
    sources = [
        ROOT / "run.py",
        *(p for name in ("irnn", "pipelines", "deploy_tvm") for p in (ROOT / name).rglob("*.py")),
    ]
    for path in sorted(sources):
        yield str(path.relative_to(ROOT)), ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def _markdown() -> list[Path]:
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def _texts() -> Iterator[tuple[str, str]]:
    """(page, text in which commands stand as lines of their own or between backticks)."""
    for page in _markdown():
        text = page.read_text(encoding="utf-8")
        yield page.name, _FENCE.sub(lambda block: "" if block[1] else block[0], text)
    yield from _docstrings()
    for path in sorted((ROOT / "conf").rglob("*.yaml")):
        comments = (line.partition("#")[2].strip() for line in path.read_text(encoding="utf-8").splitlines())
        yield str(path.relative_to(ROOT)), "\n".join(comments)


def _commands(text: str) -> Iterator[str]:
    fenced = "\n".join(body for _, body in _FENCE.findall(text))
    prose = _FENCE.sub("\n", text)
    own_lines = re.sub(r"\\\n\s*", "", fenced).splitlines() + prose.splitlines()
    for line in own_lines:
        if _COMMAND.match(line.strip()):
            yield _FOLDER.sub("FOLDER", _COMMENT.sub("", line.strip()))
    for _, span in _SPAN.findall(prose):
        if _COMMAND.match(span):
            yield " ".join(span.split())
