"""What some tests need and not every machine has: each need has a name, and a command that brings it.

A skip's reason starts with its need's name, so that ``conftest`` can end the run with one line for each.
``IRNN_TESTS_REQUIRE=arm,tvm`` makes the run fail where tests of those needs were skipped.  ``IRNN_TESTS_SECONDS=600``
starts no test after these seconds: which are left out changes from commit to commit.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.places import ROOT

COMMANDS = {
    "arm": "apt-get install --no-install-recommends qemu-user g++-aarch64-linux-gnu g++-arm-linux-gnueabihf",
    "mca": "apt-get install --no-install-recommends llvm-19",
    "objdump": "apt-get install binutils",
    "valgrind": "apt-get install --no-install-recommends valgrind",
    "tvm": "pip install 'irnn[tvm]'",
    "speech": "pip install 'irnn[speech]'",
    "c99": "apt-get install gcc clang libclang-rt-dev qemu-user gcc-aarch64-linux-gnu gcc-arm-linux-gnueabihf "
    "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm",
    "wandb": "pip install 'irnn[wandb]'",
    "make": "apt-get install make",
    "chromium": "apt-get install --no-install-recommends chromium",
    "dev": "pip install 'irnn[dev]'",
    "peers": "python -m venv peers && peers/bin/pip install 'irnn[peers]', then IRNN_PEERS_PYTHON=peers/bin/python",
    "data": "put the corpora into ../shared/data (ptb, wikitext-2, fsdd, LibriSpeech, mnist)",
    "python": "CPython 3.11.7",
    "cpu": "a processor that has these instructions",
    "time": "the same command without IRNN_TESTS_SECONDS",
}
REQUIRED = "IRNN_TESTS_REQUIRE"
SECONDS = "IRNN_TESTS_SECONDS"
SHARED = ROOT.parent / "shared" / "data"
# Another interpreter may hold the runtimes that are compared with.
PEERS_PYTHON = os.environ.get("IRNN_PEERS_PYTHON", sys.executable)
_REASON = re.compile(r"(?:Skipped: )?need (\w+): (.*)", re.DOTALL)


def reason(need: str, absent: str) -> str:
    """The reason of a skip."""
    assert need in COMMANDS
    return f"need {need}: {absent}"


def read_reason(text: str) -> tuple[str, str] | None:
    """(need, what is absent) of a skip's reason."""
    match = _REASON.match(text)
    return match and (match[1], match[2])


def skip(need: str, absent: object) -> Any:
    """Skip this test."""
    return pytest.skip(reason(need, str(absent)))


def or_skip(need: str, find: Callable[[], Any], error: type[Exception]) -> Any:
    """What ``find`` finds; its ``error`` is what is absent."""
    try:
        return find()
    except error as absent:
        return skip(need, absent)


def tvm() -> None:
    """TVM, which is an extra."""
    packages("tvm", "tvm")


def chromium() -> str:
    """The program, headless by its arguments."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    return found or skip("chromium", "chromium is not installed")


def features(missing: list[str]) -> None:
    """A processor that has the features, of which it lacks ``missing``."""
    if missing:
        skip("cpu", f"this CPU has no {', '.join(missing)}")


def data(folder: str) -> Path:
    """A corpus beside the repository."""
    if not (SHARED / folder).is_dir():
        skip("data", f"../shared/data/{folder} is absent")
    return SHARED / folder


def packages(need: str, *names: str) -> None:
    """Packages of this interpreter."""
    absent = [name for name in names if importlib.util.find_spec(name) is None]
    if absent:
        skip(need, f"{', '.join(absent)} not installed")


def peers(*names: str) -> pytest.MarkDecorator:
    """A mark: the interpreter of the other runtimes has these packages."""
    script = f"import importlib.util as u; print(*[n for n in {names!r} if u.find_spec(n) is None], sep=', ')"
    found = subprocess.run([PEERS_PYTHON, "-c", script], check=True, capture_output=True, text=True).stdout.strip()
    return pytest.mark.skipif(bool(found), reason=reason("peers", f"{found} not installed"))


objdump = pytest.mark.skipif(shutil.which("objdump") is None, reason=reason("objdump", "objdump is not installed"))
with_tvm = pytest.mark.skipif(importlib.util.find_spec("tvm") is None, reason=reason("tvm", "tvm not installed"))
