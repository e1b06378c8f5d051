"""`run.py` as a user meets it: exit codes, one line on stderr, sweeps."""

import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.config import RunConfig, read_config
from pipelines.run import run
from tests.support.interrupts import heed_interrupts
from tests.support.places import ROOT
from tests.support.tiny_run import call_run, composed, recorded_runs, tiny_overrides, write_corpus


def test_bad_input_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "run.py"),
        "experiment=ptb_lstm",
        "data.dir=/nowhere",
        f"output_dir={tmp_path}",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    expected = "error: data.dir=/nowhere is not a folder; give the folder that holds train.txt, valid.txt, test.txt\n"
    assert done.stderr == expected
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("override", ["quant.wheight=8", "experiment=none_such"])
def test_a_wrong_override_is_hydras_own_message(
    override: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as caught:
        call_run(monkeypatch, "experiment=quickstart" if "=8" in override else "trainer.threads=1", override)
    assert caught.value.code == 1
    printed = capsys.readouterr().err
    assert override.split("=")[0].split(".")[-1] in printed
    assert "Traceback" not in printed


def test_an_unknown_stage_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as caught:
        call_run(monkeypatch, *tiny_overrides(tmp_path), "until=deployment")
    assert str(caught.value.code).startswith("error: until=deployment is no stage; allowed: float, float_matched, pwl,")


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipelines.core.manifest.os.fsync", full)
    with pytest.raises(SystemExit) as caught:
        call_run(monkeypatch, *tiny_overrides(tmp_path), "until=float")
    assert str(caught.value.code).startswith("error: no space left on the disk")
    (folder,) = (tmp_path / "out" / "stages").glob("float-*/")
    assert not any(path.is_file() for path in folder.rglob("*"))


def test_a_sweep_shares_the_stages_before_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = ["recipe.float.epochs=1", "until=weights"]
    configs: list[RunConfig] = []
    monkeypatch.setattr("pipelines.run.run", lambda config, run=run: configs.append(config) or run(config))
    call_run(monkeypatch, "-m", *tiny_overrides(tmp_path), *more, "quant.weight=4,8")
    assert [config.quant.weight for config in configs] == [4, 8]
    for config in configs:  # each run's command repeats it alone
        python, script, *overrides = shlex.split(str(config.command))
        assert (python, script) == ("python", "run.py")
        assert read_config(composed(*overrides), config.command) == replace(config, sweep=None)
    folders = [path.name.split("-")[0] for path in (tmp_path / "out" / "stages").iterdir() if path.is_dir()]
    assert sorted(folders) == ["float", "float_matched", "pwl", "weights", "weights"]


# Runs of each preset; a search chooses its own (tests/pipelines/test_search.py).
SEARCHES = {"mixed_bits"}
SWEEPS = {
    "bits": (4, ["experiment=quickstart"]),
    "papers_ptb": (24, ["data.dir=FOLDER"]),
    "pwl_pieces": (4, ["experiment=quickstart"]),
    "seeds": (3, ["experiment=quickstart"]),
}


def test_every_sweep_has_its_test() -> None:
    assert {*SWEEPS, *SEARCHES} == {path.stem for path in (ROOT / "conf" / "sweep").glob("*.yaml")}


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_sweep_composes_runs_that_stand_alone(sweep: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is another one, and its command repeats it without the others."""
    count, overrides = SWEEPS[sweep]
    configs = recorded_runs(monkeypatch)
    given = [o.replace("FOLDER", str(write_corpus(tmp_path / "data"))) for o in overrides]
    call_run(monkeypatch, *given, f"sweep={sweep}", f"output_dir={tmp_path}")
    assert len(configs) == len({(c.name, str(c.quant), str(c.pwl), c.seed) for c in configs}) == count
    for config in (configs[0], configs[-1]):
        _, _, *own = shlex.split(str(config.command))
        assert not any(override.startswith("sweep=") for override in own)
        assert read_config(composed(*own), config.command) == replace(config, sweep=None)


def test_ctrl_c_is_one_line_and_leaves_no_manifest(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "run.py"), *tiny_overrides(tmp_path), "recipe.float.epochs=100000"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=heed_interrupts,
    )
    deadline = time.monotonic() + 180
    while not list(tmp_path.glob("out/stages/float-*/resume.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert errors.strip().splitlines()[-1] == "interrupted; the same command goes on from the last finished epoch"
    assert "Traceback" not in errors
    (folder,) = (tmp_path / "out" / "stages").glob("float-*/")
    assert [path.name for path in folder.iterdir()] == ["resume.ckpt"]
