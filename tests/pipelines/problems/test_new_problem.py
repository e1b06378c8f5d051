"""A new problem is one folder and its defaults: the common stages know nothing of it, and it runs through them all."""

import json
import shlex
from pathlib import Path

import pytest

from irnn.errors import IrnnError
from pipelines import problems
from pipelines.core import deploy
from pipelines.publish import publish
from pipelines.report.readme import with_tables
from tests.support.places import ROOT
from tests.support.tiny_run import call_run

PLACE = ROOT / "tests" / "new_problem"


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> str:
    """The problem's folder, where problems are looked for; what a command line has to say for its configuration."""
    monkeypatch.setattr(problems, "__path__", [*problems.__path__, str(PLACE / "problems")])
    return f"hydra.searchpath=[file://{PLACE / 'conf'}]"


def test_a_new_problem_runs_to_its_program_and_its_table(
    counting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    settings = ["problem=counting", "trainer.progress=false", "recipe.float.epochs=6", f"output_dir={tmp_path / 'out'}"]
    call_run(monkeypatch, counting, *settings)
    printed = capsys.readouterr().out
    assert "us/count" in printed or not deploy.available()
    (path,) = (tmp_path / "out" / "custom").glob("*/results.json")
    results = json.loads(path.read_text())
    assert results["problem"] == "counting"
    assert shlex.split(results["command"]) == ["python", "run.py", counting, *settings]
    assert results["config"]["recipe"]["float"]["epochs"] == results["epochs"]["float"] == 6
    assert results["config"]["data"] == {"modulus": 7, "length": 9}
    assert results["stages"]["integer"]["right"] == results["stages"]["all"]["right"] > 0.5
    assert all(found["count"] == 0 < found["compared"] for found in results["mismatches"].values())
    assert (path.parent / "program" / "numbers.json").is_file()
    assert results["us_per_count"]["tvm_integer"] == (2.0 if deploy.available() else None)
    publish([path], tmp_path / "docs")
    text = with_tables("<!-- table:custom -->\n<!-- /table -->", tmp_path / "docs")
    assert "| stage | right | size | us/count |" in text


def test_without_its_folder_it_is_unknown() -> None:
    with pytest.raises(IrnnError, match=r"problem\.name='counting' is unknown; allowed: .*language_model, speech"):
        problems.find("counting")
