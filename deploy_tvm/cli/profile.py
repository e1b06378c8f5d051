"""Count the instructions of one step on this machine, by part: `profile PROGRAM --kernels avx2`; a float one's too."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from deploy_tvm.cli import options
from irnn.errors import IrnnError
from irnn.places import need_file


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("arguments", nargs="*", metavar="PROGRAM_OR_ARTEFACT")
    parser.add_argument("--steps", type=int, default=1, help="time steps or tokens a call (1)")
    parser.add_argument("--kernels", metavar="NAME", help="a set that this CPU can run: avxvnni, avx2, portable")
    parser.add_argument("--json", metavar="FILE", help="write the result there")


def execute(parsed: argparse.Namespace, free: list[str], chosen: options.Options) -> None:
    """Instructions a step of one sequence, by part, counted by valgrind; no time is measured."""
    from deploy_tvm.artefact.artefact import open_program
    from deploy_tvm.static.profile import profile
    from deploy_tvm.static.report import profile_report
    from deploy_tvm.targets.kernel_sets import host

    (folder,) = options.exactly(free, "profile takes one program or artefact", "profile PROGRAM")
    if parsed.steps < 1:
        raise IrnnError(f"--steps {parsed.steps}: must be at least 1")
    target = Path(parsed.json) if parsed.json else None
    if target is not None:
        need_file(target, f"--json {target}")
    with Console(stderr=True).status("counting instructions"):
        result = profile(open_program(Path(folder)), host(parsed.kernels), parsed.steps)
    Console(width=None if sys.stdout.isatty() else 150, highlight=False).print(profile_report(result))
    if target is not None:
        target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
