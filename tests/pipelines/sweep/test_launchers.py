"""Sweeps in several processes: the same integers whoever launches them, and nothing trained twice after a kill."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.manifest import FILE as MANIFEST
from pipelines.report.sweep_table import cells_of, rows_of
from pipelines.sweep import sweep
from tests.support import needs
from tests.support.places import ROOT
from tests.support.tiny_run import tiny_overrides

pytestmark = pytest.mark.slow

SHORT = ["until=program", "recipe.float.epochs=2"]


def started(folder: Path, *given: str) -> subprocess.Popen:
    """A sweep, in a process group of its own; what it prints goes to a file, which no killed process closes."""
    command = [sys.executable, str(ROOT / "run.py"), "-m", *tiny_overrides(folder), *SHORT, *given]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with (folder / "printed").open("w") as printed:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, start_new_session=True, stdout=printed, stderr=subprocess.STDOUT
        )


def finished(process: subprocess.Popen, folder: Path) -> str:
    """What it has printed until its end, which is a good one."""
    process.wait(timeout=500)
    printed = (folder / "printed").read_text()
    assert process.returncode == 0, printed
    return printed


def sealed(folder: Path) -> dict[Path, tuple[bytes, int]]:
    """The manifests of all finished stages, and when they were written."""
    found = (folder / "out" / "stages").glob(f"*/{MANIFEST}")
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def the_sweep(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("out/sweeps/*/sweep.json")
    return sweep.read(path.parent)


def table(folder: Path) -> list[list[str]]:
    """The sweep's table."""
    return [list(cells_of(row)) for row in rows_of(the_sweep(folder))]


def programs(folder: Path) -> dict[str, dict[str, str]]:
    """The files of every program, by the stage's folder: their sha256."""
    found = sealed(folder)
    return {
        path.parent.name: {name: sha for name, sha in json.loads(content)["files"].items() if "program/" in name}
        for path, (content, _) in found.items()
        if path.parent.name.startswith("program-")
    }


def test_launchers_give_the_same_integers(tmp_path: Path) -> None:
    needs.packages("dev", "hydra_plugins.hydra_joblib_launcher", "hydra_plugins.hydra_submitit_launcher")
    names = ("basic", "joblib", "submitit_local")
    for name in names:
        finished(started(tmp_path / name, "quant.weight=4,8", f"launcher={name}"), tmp_path / name)
    assert len(programs(tmp_path / "basic")) == 2
    for name in names[1:]:
        assert programs(tmp_path / name) == programs(tmp_path / "basic")
        assert table(tmp_path / name) == table(tmp_path / "basic")


def test_a_sweep_that_is_killed_twice_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    """The first kill is of all its processes, the second of the first alone: its workers may still hold stages."""
    needs.packages("dev", "hydra_plugins.hydra_joblib_launcher")
    eight = ("quant.weight=2,3,4,8", "pwl.pieces=4,8", "launcher=joblib")
    seed = random.SystemRandom().randrange(1 << 30)
    print(f"kills drawn from {seed}")  # shown where the test fails
    draw = random.Random(seed)
    finished(started(tmp_path / "whole", *eight), tmp_path / "whole")
    broken = tmp_path / "broken"
    before: dict[Path, tuple[bytes, int]] = {}
    groups = []
    for stages, everything in ((draw.randint(1, 12), True), (draw.randint(14, 26), False)):
        process = started(broken, *eight)
        groups.append(process.pid)
        while len(sealed(broken)) < stages and process.poll() is None:
            time.sleep(0.02)
        time.sleep(draw.random() / 2)
        assert process.poll() is None, "it has ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL) if everything else process.kill()
        process.wait()
        found = sealed(broken)
        assert before.items() <= found.items()
        before = found
    try:
        printed = finished(started(broken, *eight), broken)
    finally:
        for group in groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
    assert "done before" in printed
    assert before.items() <= sealed(broken).items()  # what was sealed was not trained again
    assert len(table(broken)) == 8
    assert table(broken) == table(tmp_path / "whole")
    assert programs(broken) == programs(tmp_path / "whole")
