"""`python -m pipelines.step_times`."""

import json
from pathlib import Path

import pytest

from pipelines.step_times import measured, worker
from pipelines.step_times.__main__ import main
from tests.support.tiny_run import tiny_overrides


@pytest.mark.parametrize("stage", ["float", "all"])
def test_a_stage_is_trained_step_by_step(stage: str, tmp_path: Path) -> None:
    """More steps than its epochs have, and nothing is left."""
    runtime = worker.load(stage, tiny_overrides(tmp_path))
    for _ in range(60):
        runtime.call()
    assert not (tmp_path / "out").exists()


def test_what_ends_a_training_ends_its_step(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="clip"):
        worker.load("float", [*tiny_overrides(tmp_path), "recipe.clip=-1"]).call()


@pytest.mark.slow
def test_stages_stand_beside_other_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measured, "STAGES", ("float", "weights"))
    own = ["against=[torch,brevitas]", "rounds=2", "seconds=0.4"]
    assert main([*tiny_overrides(tmp_path), *own]) == 0
    result = json.loads((tmp_path / "out/step_times/quickstart.json").read_text())
    assert list(result["ms_per_step"]) == ["float", "weights", "torch", "brevitas", "brevitas_jit"]
    assert result["over_float"]["float"] == 1
    assert all(value is None or value > 0 for value in result["ms_per_step"].values())
    assert (result["ms_per_step"]["brevitas"] is None) == ("brevitas" in result["reasons"])
    assert "stage weights" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("against=[keras]", "against=keras"),
        ("rounds=0", "rounds=0"),
        ("seconds=0", "seconds=0"),
        ("peers_python=/nowhere/python", "/nowhere/python"),
        ("model.cell=x", "x"),
    ],
)
def test_bad_input_is_one_line(given: str, says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*tiny_overrides(tmp_path), given]) == 1
    error = capfd.readouterr().err
    assert says in error
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
