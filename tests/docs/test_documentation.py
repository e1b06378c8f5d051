"""Every command and every code block of README, docs, docstrings and `conf` runs as it stands there, on small settings.

`tests/docs/page_examples.py` says by which setting; a command that it does not know fails here, and so does an entry
that no page shows.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy_tvm.remote import emulated
from tests.docs import pages
from tests.docs.page_examples import EXAMPLES, FLOAT, Example, NotRun
from tests.docs.page_places import Workspace, workspace
from tests.support import boards, needs
from tests.support.places import ROOT

SHOWN = pages.commands()
RUN = {command: example for command, example in EXAMPLES.items() if isinstance(example, Example)}
WHOLE = {
    command: replace(example, more=example.more.removesuffix(FLOAT))
    for command, example in RUN.items()
    if example.more.endswith(FLOAT)
}


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """The workspace of all commands, in which one makes what another reads."""
    needs.tvm()
    with workspace(tmp_path_factory.mktemp("workspace")) as made:
        yield made


def test_every_command_on_a_page_has_its_entry_and_every_entry_its_page() -> None:
    unknown = {command: where for command, where in SHOWN.items() if command not in EXAMPLES}
    assert not unknown, "these commands have no entry in tests/docs/page_examples.py"
    assert not set(EXAMPLES) - set(SHOWN), "these entries are on no page any more"


def test_what_is_not_run_says_why() -> None:
    reasons = [example.reason for example in EXAMPLES.values() if isinstance(example, NotRun)]
    assert all(reasons)
    assert len(reasons) < len(RUN)


def need(what: str | None) -> None:
    """Skip where an emulated board, or what counts its instructions, is absent."""
    if what == "counter":
        boards.need_counter("cortex_a53")
        boards.need_counter("cortex_a76")
    elif what in ("host", "armv7a"):  # whose server is built, and whose bundle is written but not run
        boards.need(what, cxx=True)
    elif what is not None:
        boards.need(what, emulated.QEMU, cxx=True)


def slow(example: Example) -> tuple[pytest.MarkDecorator, ...]:
    return (pytest.mark.slow,) if example.slow else ()


@pytest.mark.parametrize(
    ("shown", "example"), [pytest.param(*item, marks=slow(item[1]), id=item[0]) for item in RUN.items()]
)
def test_a_command_runs(shown: str, example: Example, places: Workspace) -> None:
    need(example.needs)
    command = example.command(shown, places)
    code, printed = (serve if example.serves else places.run)(command)
    assert code == example.code, f"{command}\n{printed}"
    assert example.says in printed
    assert "Traceback" not in printed


@pytest.mark.slow
@pytest.mark.parametrize(("shown", "example"), WHOLE.items(), ids=WHOLE)
def test_a_run_comes_to_its_end(shown: str, example: Example, places: Workspace) -> None:
    command = example.command(shown, places)
    code, printed = places.run(command)
    assert code == 0, f"{command}\n{printed}"
    # Workers print to the terminal of their own; the parent says where the sweep lies.
    end = "the sweep: " if "launcher=" in shown else "results, program and artefact: "
    assert "experiment=librispeech_encoder" in shown or end in printed


def serve(command: str) -> tuple[int, str]:
    """A command that serves until it is ended: 0 and the line that says so."""
    import shlex

    program, *arguments = shlex.split(command)
    assert program == "python"
    with subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        process.terminate()
    return 0, line


TINY = (
    "vocabulary_size=10000, embedding_size=300, hidden_size=300",
    "vocabulary_size=50, embedding_size=8, hidden_size=8",
)


@needs.with_tvm
@pytest.mark.parametrize("page", pages.python_blocks())
def test_a_code_block_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    text = pages.python_blocks()[page]
    assert TINY[0] in text
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    batches = [torch.randint(0, 50, (2, 6)) for _ in range(3)]
    names = {"batches_of_ids": batches, "batches": batches, "ids": np.array([3])}
    exec("import irnn\n" + text.replace(*TINY), names)
    logits, state = names["program"].step(np.array([3]))
    assert np.array_equal(names["logits_i32"], logits)
    assert state.keys() == names["state"].keys()


@pytest.mark.parametrize(
    ("goal", "commands"), [("run", ["run.py experiment=quickstart"]), ("test", ["ruff", "pytest"])]
)
def test_make_runs_what_the_page_says(goal: str, commands: list[str]) -> None:
    if shutil.which("make") is None:
        needs.skip("make", "no make on this machine")
    done = subprocess.run(["make", "--dry-run", goal], cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(command in done.stdout for command in commands)
