"""The program's side needs no PyTorch: programs load, are proved, run and are listed where it is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.irnn.program.test_version1 import FOLDER

SCRIPT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError(f"no {name} here")

sys.meta_path.insert(0, Blocked())
import numpy as np
import irnn

program = irnn.load(sys.argv[1])
program.check()
logits, state = program.run(np.array([[1, 2, 3]]))
row, state = program.step(np.array([4]), state)
program.save(sys.argv[2])
for part in irnn.load(sys.argv[3]).values():
    part.check()
print(program.describe().splitlines()[0], logits.shape, row.shape)
assert not any(name.partition(".")[0] == "torch" for name in sys.modules)
try:
    import torch
except ImportError as error:
    print(error)
"""


def test_programs_are_loaded_proved_run_and_listed_without_torch(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(FOLDER / "program"), str(tmp_path / "again"), str(FOLDER / "set")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["integer program (1, 3, 12) (1, 12)", "no torch here"]
