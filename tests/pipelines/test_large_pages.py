"""Large pages are asked for in every process that trains, unless its user has said otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("0", "0")])
def test_what_the_user_says_stays(given: str | None, expected: str) -> None:
    asked = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    program = "import os, sys, pipelines; assert 'torch' not in sys.modules; print(os.environ['THP_MEM_ALLOC_ENABLE'])"
    found = subprocess.run(
        [sys.executable, "-c", program],
        env=asked | ({} if given is None else {"THP_MEM_ALLOC_ENABLE": given}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == expected
