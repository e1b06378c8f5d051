"""A sweep as one thing: its folder, its file, its table, its failures."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from irnn.errors import IrnnError
from pipelines.config import RunConfig
from pipelines.sweep import sweep
from tests.support.places import ROOT
from tests.support.tiny_run import call_run, tiny_overrides, unmeasured


def fake_runs(monkeypatch: pytest.MonkeyPatch, *failing: int, error: type[Exception] = IrnnError) -> list[Any]:
    """In place of runs: figures that follow from the weights' bits; those of `failing` bits fail. The bits that ran."""
    ran: list[Any] = []

    def run(config: RunConfig) -> dict[str, Any]:
        bits = config.quant.choice("weight")
        ran.append(bits)
        if bits in failing:
            raise error(f"quant.weight={bits}: not today")
        return unmeasured(config) | {
            "digest": f"d{bits}",
            "stages": {
                "float_matched": {"test_perplexity": 100.0},
                "integer": {"test_perplexity": 100.0 + 8 / bits},
            },
            "size_bytes": {"float": 8000, "integer": 1000 * bits},
            "us_per_token": {"tvm_float": 40.0, "tvm_integer": 2.0 * bits},
            "mismatches": {"interpreter_vs_qat": {"count": 0, "compared": 7}, "tvm_vs_interpreter": None},
        }

    monkeypatch.setattr("pipelines.run.run", run)
    return ran


def the_sweep(folder: Path) -> tuple[Path, dict[str, Any]]:
    (path,) = folder.glob("out/sweeps/*/sweep.json")
    return path.parent, json.loads(path.read_text())


def test_a_sweep_ends_with_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    fake_runs(monkeypatch)
    call_run(monkeypatch, "-m", *tiny_overrides(tmp_path), "quant.weight=2,4,8")
    folder, found = the_sweep(tmp_path)
    assert folder.name == f"quickstart-{found['digest']}"
    assert [cell["state"] for cell in found["cells"]] == ["done"] * 3
    assert [cell["digest"] for cell in found["cells"]] == ["d2", "d4", "d8"]
    assert [cell["results"]["size_bytes"]["integer"] for cell in found["cells"]] == [2000, 4000, 8000]
    assert "quant.weight=4" in found["cells"][1]["overrides"]
    assert found["command"].startswith("python run.py -m experiment=quickstart")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["4", "4/8", "102.00", "100.00", "+2.00", "0.00", "MB", "2.0x", "8.0", "0", "of", "7"] in lines
    assert (folder / "report.html").is_file()


def test_seeds_end_with_their_mean_and_spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def run(config: RunConfig) -> dict[str, Any]:
        stages = {
            name: {"test_perplexity": 80.0 + 2 * config.seed + more} for name, more in (("float", 1), ("integer", 0))
        }
        return unmeasured(config) | {"stages": stages}

    monkeypatch.setattr("pipelines.run.run", run)
    call_run(monkeypatch, *tiny_overrides(tmp_path), "sweep=seeds")
    said = "test over 3 seeds: 84.00 +- 2.00, float 85.00"
    assert said in capsys.readouterr().out
    folder, _ = the_sweep(tmp_path)
    assert said in (folder / "report.html").read_text()


def test_an_override_that_no_cell_can_have_is_hydras_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    ran = fake_runs(monkeypatch)
    with pytest.raises(SystemExit) as caught:
        call_run(monkeypatch, "-m", *tiny_overrides(tmp_path), "quant.wheight=2,4")
    assert caught.value.code == 1
    assert "wheight" in (printed := capsys.readouterr().err)
    assert "Traceback" not in printed
    assert ran == []


def test_the_same_command_is_the_same_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_runs(monkeypatch)
    given = tiny_overrides(tmp_path)
    call_run(monkeypatch, "-m", *given, "quant.weight=2,4")
    folder, before = the_sweep(tmp_path)
    call_run(monkeypatch, "-m", *reversed(given), "quant.weight=2,4", "logger=wandb", "launcher=basic")
    again, after = the_sweep(tmp_path)
    assert again == folder
    assert [cell["digest"] for cell in after["cells"]] == [cell["digest"] for cell in before["cells"]]
    call_run(monkeypatch, "-m", *given, "quant.weight=2,8")
    assert len(list(tmp_path.glob("out/sweeps/*/sweep.json"))) == 2


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (IrnnError, "quant.weight=4: not today"),
        (KeyError, "KeyError: 'quant.weight=4: not today' (a bug)"),
    ],
)
def test_a_cell_that_fails_leaves_the_others(
    error: type[Exception], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    ran = fake_runs(monkeypatch, 4, error=error)
    with pytest.raises(SystemExit, match="error: 1 of 3 cells have no results") as caught:
        call_run(monkeypatch, "-m", *tiny_overrides(tmp_path), "quant.weight=2,4,8")
    assert "\n" not in str(caught.value.code)
    assert ran == [2, 4, 8]
    _, found = the_sweep(tmp_path)
    assert [cell["state"] for cell in found["cells"]] == ["done", "failed", "done"]
    assert found["cells"][1]["reason"] == reason
    printed = capsys.readouterr().out
    assert f"cell 1 failed: {reason}\n  python run.py" in printed
    fake_runs(monkeypatch)  # mended, the same command fills the gap
    call_run(monkeypatch, "-m", *tiny_overrides(tmp_path), "quant.weight=2,4,8")
    assert [cell["state"] for cell in the_sweep(tmp_path)[1]["cells"]] == ["done"] * 3


def test_ctrl_c_ends_the_sweep_and_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = fake_runs(monkeypatch, 4, error=KeyboardInterrupt)
    with pytest.raises(SystemExit, match="interrupted; the same command goes on"):
        call_run(monkeypatch, "-m", *tiny_overrides(tmp_path), "quant.weight=2,4,8")
    assert ran == [2, 4]
    assert [cell["state"] for cell in the_sweep(tmp_path)[1]["cells"]] == ["done", "interrupted"]


def test_a_finished_cell_stays_finished_while_it_is_looked_at_again(tmp_path: Path) -> None:
    cell = {"number": 0, "overrides": ["a=1"], "state": sweep.DONE, "results": {"x": 1}}
    sweep.begin(tmp_path / "s-1", "s", "python run.py")
    sweep.record(tmp_path / "s-1", cell)
    sweep.record(tmp_path / "s-1", cell | {"state": sweep.RUNNING, "results": None})
    assert sweep.read(tmp_path / "s-1")["cells"] == [cell]
    sweep.record(tmp_path / "s-1", cell | {"state": sweep.FAILED, "results": None})
    assert sweep.read(tmp_path / "s-1")["cells"][0]["state"] == sweep.FAILED


def test_an_empty_sweep_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_runs(monkeypatch)
    with pytest.raises(SystemExit, match=r"error: the sweep has no cells: .* chooses among no values"):
        call_run(monkeypatch, "-m", *tiny_overrides(tmp_path), "recipe=glob(none_such*)")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "sweep.json is damaged; delete it and run the sweep again"),
        ('{"cells": []}', "is damaged"),
        ('{"format": 7, "cells": []}', "is of format 7, this version writes 1"),
        (None, "holds no sweep.json: give the folder of a sweep"),
    ],
)
def test_a_bad_file_is_one_line(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(IrnnError, match=message) as caught:
        sweep.read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("launcher=abacus", "launcher=abacus is no launcher; allowed: basic, joblib, submitit_local, submitit_slurm"),
        (
            "launcher=joblib",
            "launcher=joblib: the plugin hydra_joblib_launcher is missing: pip install 'irnn[sweep]'",
        ),
        (
            "sweep=mixed_bits",
            "sweep=mixed_bits: the plugin hydra_optuna_sweeper is missing: pip install 'irnn[sweep]'",
        ),
    ],
)
def test_a_launcher_that_is_absent_is_one_line(
    given: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.sweep.launchers.importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as caught:
        call_run(monkeypatch, *tiny_overrides(tmp_path), given)
    assert caught.value.code == f"error: {line}"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), "experiment=quickstart", "sweep=bits", f"output_dir={tmp_path}/file/x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: output_dir=")
    assert done.stderr.count("\n") == 1
