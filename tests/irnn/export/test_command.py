"""``python -m irnn.export``: what it writes, prints and refuses, without PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from irnn.export.__main__ import main
from irnn.program.sets import ProgramSet
from tests.support.places import ROOT
from tests.support.random_programs import Spec, random_program


@pytest.fixture
def program(tmp_path: Path) -> Path:
    random_program(Spec()).save(tmp_path / "net")
    return tmp_path / "net"


def test_a_program_is_written_with_its_sizes(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = program.parent / "c"
    assert main(["c99", str(program), f"out={out}", "compiler=gcc"]) == 0
    assert {path.name for path in out.iterdir()} == {"net.h", "net.c", "irnn_runtime.h"}
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == f"{out}: net.h, net.c, irnn_runtime.h"
    assert "code (gcc -std=c99 -Os)" in printed
    assert main(["c99", str(program), f"out={out}", "compiler=gcc", "--json"]) == 0
    (part,) = json.loads(capsys.readouterr().out)["programs"]
    assert part["state"] == 17 * (1 + 2)
    header = (out / "net.h").read_text()
    assert f"constants {part['constants']:,} bytes (read-only), scratch {part['scratch']:,} bytes" in header
    assert part["code"] > 100


def test_a_set_is_a_pair_of_files_for_each_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ProgramSet({"first": random_program(Spec()), "second": random_program(Spec(seed=1))}).save(tmp_path / "pair")
    assert main(["c99", str(tmp_path / "pair"), f"out={tmp_path / 'c'}", "name=my net"]) == 0
    assert {path.stem for path in (tmp_path / "c").iterdir()} == {"my_net_first", "my_net_second", "irnn_runtime"}
    assert main(["onnx", str(tmp_path / "pair"), f"out={tmp_path / 'o' / 'm.onnx'}"]) == 0
    assert {path.name for path in (tmp_path / "o").iterdir()} == {"m_first.onnx", "m_second.onnx"}
    assert "m_first.onnx: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([], "`out` is missing"),
        (["out=c", "size=3"], "size=3: no such argument; allowed are out=..., name=..."),
        (["out=c", "max_steps=many"], "max_steps=many is no whole number"),
        (["out=c", "out=d"], "out=d: out is given twice"),
        (["out=c", "compiler=no-such-cc"], "compiler=no-such-cc: there is no no-such-cc on this machine"),
        (["out=c", "compiler=gcc --no-such-flag"], "compiler: gcc -std=c99 -Os failed: "),
    ],
)
def test_bad_arguments_are_one_line(
    program: Path, keys: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(program.parent)
    assert main(["c99", str(program), *keys]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")
    assert not (program.parent / "c").exists()


def test_no_pytorch_is_loaded(program: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from irnn.export.__main__ import main\n"
        f"sys.exit(main(['c99', {str(program)!r}, 'out=c']) or main(['onnx', {str(program)!r}, 'out=m.onnx']))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, cwd=program.parent, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
