"""The search for bits by matrix, with two goals."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from irnn.errors import IrnnError
from pipelines import publish
from pipelines.report.front import front, table
from pipelines.report.readme import with_tables
from pipelines.report.report import goals
from tests.support.tiny_run import call_run, recorded_runs, tiny_overrides


def test_a_search_ends_with_its_front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="need hydra-optuna-sweeper: irnn[sweep]")
    call_run(monkeypatch, *tiny_overrides(tmp_path), "sweep=mixed_bits", "hydra.sweeper.n_trials=6")
    found = json.loads(next(tmp_path.glob("out/sweeps/*/pareto_front.json")).read_text())
    assert found["experiment"] == "quickstart"
    assert all(set(row["choices"]) == {f"quant.{name}" for name in ("embedding", "of.lstm.0.w_x", "of.lstm.0.w_h")}
               for row in found["rows"])  # fmt: skip
    for smaller, larger in pairwise(found["rows"]):
        assert smaller["size_bytes"] < larger["size_bytes"]
        assert smaller["figure"] > larger["figure"]
    printed = capsys.readouterr().out
    assert "what nothing else beats in both" in printed
    publish.publish_front(next(tmp_path.glob("out/sweeps/*/")), tmp_path / "bits.json")
    shown = with_tables("<!-- front:bits -->\n<!-- /table -->", tmp_path)
    assert "| embedding | lstm.0.w_x | lstm.0.w_h | figure | size |" in shown
    assert f"{found['rows'][0]['figure']:.2f}" in shown
    assert "of 6 trials" in shown
    stages = {path.name.partition("-")[0] for path in (tmp_path / "out" / "stages").iterdir() if path.is_dir()}
    assert stages == {"float", "float_matched", "all", "program"}  # one float network, nothing compiled


def test_a_search_needs_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="need hydra-optuna-sweeper: irnn[sweep]")
    recorded_runs(monkeypatch)
    with pytest.raises(SystemExit, match="error: until=float: a search goes by the program's bytes"):
        call_run(monkeypatch, *tiny_overrides(tmp_path), "sweep=mixed_bits", "until=float")


def test_the_front_is_sorted_and_free_of_repetitions() -> None:
    solution = {"params": {"++quant.of.lstm.0.w_h": 4, "quant.embedding": "midrise:2"}, "values": [80.5, 1000.0]}
    other = {"params": {"++quant.of.lstm.0.w_h": 2, "quant.embedding": 8}, "values": [90.0, 900.0]}
    rows = front({"name": "optuna", "solutions": [solution, other, solution]})
    assert [row["size_bytes"] for row in rows] == [900, 1000]
    assert rows[1] == {
        "choices": {"quant.of.lstm.0.w_h": 4, "quant.embedding": "midrise:2"}, "figure": 80.5, "size_bytes": 1000,
    }  # fmt: skip
    assert [column.header for column in table(rows).columns] == ["lstm.0.w_h", "embedding", "figure", "size"]


def test_what_a_search_goes_by() -> None:
    stages = {"float": {"valid_perplexity": 3.0, "test_perplexity": 4.0}, "all": {"valid_perplexity": 5.0}}
    results = {"problem": "language_model", "stages": stages, "size_bytes": {"integer": 7}}
    assert goals(results) == (5.0, 7.0)
    assert goals(results | {"size_bytes": {"integer": None}}) is None
    accurate = {"problem": "classifier", "stages": {"all": {"dev_accuracy": 0.75}}, "size_bytes": {"integer": 7}}
    assert goals(accurate) == (0.25, 7.0)  # a search makes it as low as possible


def test_a_front_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(IrnnError, match="give the folder of a search that has ended"):
        publish.publish_front(tmp_path, tmp_path / "bits.json")
