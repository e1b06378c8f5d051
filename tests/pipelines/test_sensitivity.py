"""`python -m pipelines.sensitivity`."""

import json
from pathlib import Path

import pytest

from pipelines.sensitivity import main
from tests.support.tiny_run import tiny_overrides


def test_a_run_s_float_network_is_measured(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*tiny_overrides(tmp_path), "recipe.float.epochs=1", 'choices=[4,"midrise:2"]']) == 0
    (path,) = tmp_path.glob("out/stages/float-*/sensitivity.json")
    rows = json.loads(path.read_text())["rows"]
    assert {row["name"] for row in rows} == {"embedding", "lstm.0.w_x", "lstm.0.w_h"}
    assert {row["choice"] for row in rows} == {4, "midrise:2"}
    assert "midrise:2" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("given", "says"),
    [("experiment=nothing", "nothing"), ("choices=[9]", "9"), ("choices=[", "choices"), ("model.cell=x", "x")],
)
def test_bad_input_is_one_line(given: str, says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*tiny_overrides(tmp_path), "recipe.float.epochs=1", given]) == 1
    error = capfd.readouterr().err
    assert says in error
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
