"""`python -m pipelines.dynamic`."""

import json
from pathlib import Path

import pytest

from pipelines.dynamic import main
from tests.support.tiny_run import tiny_overrides


def test_the_matched_float_network_is_measured_both_ways(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*tiny_overrides(tmp_path), "recipe.float.epochs=1", "tokens=30", "rate=0.01"]) == 0
    (path,) = tmp_path.glob("out/stages/float_matched-*/dynamic.json")
    found = json.loads(path.read_text())
    assert (found["network"], found["tokens"]) == ("float_matched", 30)
    assert found["dynamic"]["rate"] == 0.01
    for split in ("valid", "test"):
        both = [found[kind][f"{split}_perplexity"] for kind in ("static", "dynamic")]
        assert both[0] != both[1]
        assert all(1 < perplexity < 1000 for perplexity in both)
    assert '"dynamic"' in capfd.readouterr().out


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("rate=-1", "rate=-1.0: must be at least 0"),
        ("tokens=0", "tokens=0: must be a whole number, at least 1"),
        ("steps=x", "steps='x' has the wrong type; wanted: int"),
        ("problem=copy_memory", "problem=copy_memory: only the text of problem=language_model is read dynamically"),
    ],
)
def test_bad_input_is_one_line(given: str, says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = [given] if given.startswith("problem") else [*tiny_overrides(tmp_path), given]
    assert main(arguments) == 1
    error = capfd.readouterr().err
    assert error.startswith(f"error: {says}")
    assert len(error.splitlines()) == 1
