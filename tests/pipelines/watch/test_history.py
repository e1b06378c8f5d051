"""A run's curves are one history, whichever of its stages ran before; Weights & Biases, TensorBoard show the same."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import RunConfig
from pipelines.core import deploy
from pipelines.recipe import QAT_STAGES
from pipelines.run import run
from pipelines.watch.history import History
from tests.support import needs
from tests.support.tiny_run import call_run, recorded_runs, stages_of, tiny_config, tiny_overrides
from tests.support.wandb_file import records

TRAINED = ("float", "float_matched", *QAT_STAGES)
# Of the float stage two, of float_matched those of the others together, of each of the others one.
EPOCHS = {"float": 2, "float_matched": 4} | dict.fromkeys(QAT_STAGES, 1)
SHORT = ["recipe.float.epochs=2"]

# stage/name -> [(epoch of the run, value)]
Curves = dict[str, list[tuple[int, float]]]


@pytest.fixture
def without_tvm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy, "available", lambda: False)


def curves_in_manifests(config: RunConfig) -> Curves:
    found: Curves = {}
    before = 0
    for name in TRAINED:
        curve = json.loads((stages_of(config)[name].folder / "manifest.json").read_text())["curve"]
        assert [point["epoch"] for point in curve] == list(range(1, EPOCHS[name] + 1))
        for point in curve:
            for key, value in point.items():
                if key != "epoch":
                    found.setdefault(f"{name}/{key}", []).append((before + point["epoch"], value))
        before += len(curve)
    return found


def curves_in_tensorboard(folder: Path) -> Curves:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def offline_runs(config: RunConfig) -> list[Path]:
    return sorted((config.output_dir / "wandb").glob("offline-run-*/*.wandb"))


def of_wandb(path: Path) -> tuple[Any, Curves, dict[str, Any], dict[str, list[str]]]:
    """(the run, its curves, its summary, files of its artefacts by type)."""
    runs, curves, summary, artefacts, steps = [], {}, {}, {}, []
    for record in records(path):
        if record.HasField("run"):
            runs.append(record.run)
        if record.HasField("history"):
            step = record.history.step.num
            steps.append(step)
            for item in record.history.item:
                name = item.key or "/".join(item.nested_key)
                if not name.startswith("_"):
                    curves.setdefault(name, []).append((step, json.loads(item.value_json)))
        if record.HasField("summary"):
            for item in record.summary.update:
                summary["/".join([item.key] if item.key else item.nested_key)] = json.loads(item.value_json)
        artefact = record.request.log_artifact.artifact if record.HasField("request") else None
        artefact = record.artifact if record.HasField("artifact") else artefact
        if artefact is not None and artefact.type:
            artefacts[artefact.type] = [entry.local_path for entry in artefact.manifest.contents]
    assert steps == sorted(set(steps))  # one axis, forwards
    return runs[0], curves, summary, artefacts


def test_tensorboard_shows_what_the_manifests_hold(tmp_path: Path, without_tvm: None) -> None:
    config = tiny_config(tmp_path, "logger=tensorboard", *SHORT)
    digest = run(config)["digest"]
    expected = curves_in_manifests(config)
    assert {name.split("/")[1] for name in expected} == {"step", "lr", "train_loss", "valid_perplexity"}
    assert [epoch for epoch, _ in expected["float_matched/lr"]] == [3, 4, 5, 6]
    folder = config.output_dir / "tensorboard" / f"quickstart-{digest}"
    for _ in range(2):  # the second run finds all stages done, and shows them again, once
        found = curves_in_tensorboard(folder)
        assert found.keys() == expected.keys()
        for name, points in expected.items():
            assert found[name] == [(epoch, pytest.approx(value)) for epoch, value in points], name
        run(config)


def test_a_pipeline_is_one_run_of_wandb(tmp_path: Path, without_tvm: None) -> None:
    needs.packages("wandb", "wandb")
    config = tiny_config(tmp_path, "logger=wandb", *SHORT)
    results = run(config)
    (path,) = offline_runs(config)
    first, curves, summary, artefacts = of_wandb(path)
    assert (first.run_id, first.display_name) == (results["digest"], f"quickstart-{results['digest']}")
    assert first.run_group == ""
    settings = {item.key: json.loads(item.value_json) for item in first.config.update}
    assert settings["recipe"]["float"]["epochs"] == 2
    assert curves == curves_in_manifests(config)
    for name in ("float/valid_perplexity", "integer/test_perplexity"):
        stage, figure = name.split("/")
        assert summary[name] == results["stages"][stage][figure]
    assert summary["mismatches/interpreter_vs_qat/count"] == 0
    assert summary["size_bytes/integer"] == results["size_bytes"]["integer"]
    program = config.output_dir / "quickstart" / results["digest"] / "program"
    assert sorted(artefacts["program"]) == sorted(str(file.absolute()) for file in program.iterdir())
    assert set(artefacts) == {"program", "report"}  # there is no library here
    assert [Path(path).name for path in artefacts["report"]] == ["report.html"]


def test_a_run_that_goes_on_keeps_its_wandb_run(tmp_path: Path) -> None:
    """Stopped after a stage and called again, then with everything done: three times one id, the last history whole."""
    needs.packages("wandb", "wandb")
    parts = [tiny_config(tmp_path, "logger=wandb", f"until={stage}", *SHORT) for stage in ("float", "all", "all")]
    found = []
    for config in parts:
        run(config)
        found.append(of_wandb(offline_runs(config)[-1]))
    assert len({first.run_id for first, *_ in found}) == 1
    assert set(found[0][1]) == {f"float/{key}" for key in ("step", "lr", "train_loss", "valid_perplexity")}
    assert found[1][1] == found[2][1] == curves_in_manifests(parts[-1])
    shown = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", "--dry-run", str(parts[0].output_dir / "wandb")],
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0
    assert "Would sync 3 run(s)" in shown.stdout + shown.stderr


def test_runs_of_a_sweep_know_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = recorded_runs(monkeypatch)
    call_run(monkeypatch, *tiny_overrides(tmp_path))
    call_run(monkeypatch, "-m", *tiny_overrides(tmp_path), "quant.weight=4,8")
    call_run(monkeypatch, *tiny_overrides(tmp_path), "sweep=bits")
    assert configs[0].sweep is None
    names = [config.sweep for config in configs[1:]]
    assert [str(name).rpartition("-")[0] for name in names] == [*["quickstart"] * 2, *["quickstart_bits"] * 4]
    assert len(set(names)) == 2


def test_an_epoch_is_shown_once(tmp_path: Path) -> None:
    class Seen:
        def __init__(self) -> None:
            self.points: list[tuple[int, dict[str, float]]] = []

        def point(self, epoch: int, values: dict[str, float]) -> None:
            self.points.append((epoch, values))

    history, seen = History(), Seen()
    history._sinks, history._before = [seen], {"float": 0, "all": 2}
    curve = [{"epoch": 1, "lr": 0.5}, {"epoch": 2, "lr": 0.25}]
    history.show("float", curve[:1])
    history.show("float", curve)
    history.show("float", curve)
    history.show("all", curve[:1])
    assert seen.points == [(1, {"float/lr": 0.5}), (2, {"float/lr": 0.25}), (3, {"all/lr": 0.5})]
