"""The index of experiments: complete, and what the command writes."""

import json
from pathlib import Path

import pytest

from irnn.errors import IrnnError
from pipelines.publish import DOCS, EXPERIMENTS
from pipelines.report.recipes import ABSENT, PAGE, command_of, recipes_page


def test_every_experiment_has_results_or_a_reason_and_the_page_is_what_the_command_writes() -> None:
    page = (DOCS.parent / PAGE).read_text(encoding="utf-8")
    assert recipes_page(EXPERIMENTS, DOCS) == page, "run `python -m pipelines.publish`"
    for path in EXPERIMENTS.glob("*.yaml"):
        assert f"`{path.stem}`" in page
        assert f"experiment={path.stem}" in command_of(path)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """One experiment with results, one with a reason."""
    experiments, results = tmp_path / "experiment", tmp_path / "results"
    experiments.mkdir()
    results.mkdir()
    for name in ("one", "two"):
        text = (
            f"# @package _global_\n# Words, {name} cell; small:\n#   python run.py experiment={name} data.dir=FOLDER\n"
        )
        (experiments / f"{name}.yaml").write_text(text)
    run = {"wall_seconds": {"float": 100.0, "all": 20.0}, "commit": "a" * 40}
    published = {
        "problem": "language_model",
        "stages": {"float_matched": {"test_perplexity": 90.0}, "integer": {"test_perplexity": 91.5}},
        "size_bytes": {"float": 4_000_000, "integer": 1_000_000},
        "us_per_token": {"tvm_float": 50.0, "tvm_integer": 10.0},
        "seeds": {"1": run, "2": run | {"wall_seconds": {"float": 240.0}}},
    }
    (results / "one.json").write_text(json.dumps(published))
    (results / ABSENT).write_text(json.dumps({"two": "not run yet"}))
    return experiments, results


def test_a_row_is_what_was_published(folders: tuple[Path, Path]) -> None:
    page = recipes_page(*folders)
    row = (
        "| [`one`](results/one.json) | Words, one cell | perplexity test 91.50 (90.00) | 1.00 MB (4.00 MB) | "
        "10.0 (50.0) us/token | 1, 2 | 3 min | aaaaaaaaaaaa |"
    )
    assert row in page or row.replace("perplexity test", "test") in page
    assert "- `two`: not run yet\n" in page
    commands = [f"python run.py experiment={name} data.dir=FOLDER" for name in ("one", "two")]
    assert page.endswith("```\n" + "\n".join(commands) + "\n```\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e, r: (e / "three.yaml").write_text("# Words\n"), "experiment three has neither results nor a reason"),
        (lambda e, r: (r / ABSENT).write_text("{}"), "experiment two has neither results nor a reason: run it and"),
        (
            lambda e, r: (r / ABSENT).write_text('{"one": "x", "two": "y"}'),
            "experiment one has both results and a reason why it has none",
        ),
        (lambda e, r: (r / ABSENT).write_text('{"two": "y", "six": "z"}'), "names six, which is no experiment"),
        (lambda e, r: (e / "two.yaml").write_text("# Words\n"), "two.yaml says no command"),
    ],
)
def test_a_gap_is_one_line(change, message: str, folders: tuple[Path, Path]) -> None:
    change(*folders)
    with pytest.raises(IrnnError, match=message) as caught:
        recipes_page(*folders)
    assert "\n" not in str(caught.value)
