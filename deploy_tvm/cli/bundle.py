"""Write one archive for a board without RPC: library, parameters, golden vectors and a runner."""

from __future__ import annotations

import argparse
from pathlib import Path

from deploy_tvm.cli import options
from irnn.errors import IrnnError

GOLDEN_TOKENS = 64


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("arguments", nargs="*", metavar="PROGRAM_OR_ARTEFACT target=NAME out=FILE.tar.gz")
    parser.add_argument("--tokens", type=int, default=GOLDEN_TOKENS, help="golden steps to compare (default 64)")


def execute(parsed: argparse.Namespace, free: list[str], chosen: options.Options) -> None:
    """Write one archive for a board without RPC: library, parameters, golden vectors and a runner."""
    from deploy_tvm.bundle.bundle import bundle
    from deploy_tvm.targets import from_config

    if len(free) != 1:
        raise IrnnError(f"bundle takes one program or artefact, not {len(free)}: bundle PROGRAM target=cortex_a72")
    folder, target = Path(free[0]), from_config(chosen.target)
    archive = chosen.out or Path(f"{folder.resolve().name}-{target.name}.tar.gz")
    bundle(folder, target, archive, parsed.tokens)
    name = archive.name.removesuffix(".tar.gz")
    print(f"{archive}: {archive.stat().st_size / 1e6:.2f} MB; on the board: tar xzf {archive.name} && {name}/runner")
