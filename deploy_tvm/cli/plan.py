"""Print what a program's kernel does in turn: `plan PROGRAM target=host`."""

from __future__ import annotations

import argparse
from pathlib import Path

from deploy_tvm.cli import options


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("arguments", nargs="*", metavar="PROGRAM_OR_ARTEFACT target=NAME")


def execute(parsed: argparse.Namespace, free: list[str], chosen: options.Options) -> None:
    """Which values lie in memory and what is fused into which loop, of one program or of each in a set."""
    from deploy_tvm.artefact.artefact_set import open_parts
    from deploy_tvm.codegen.emit import plan_of
    from deploy_tvm.targets import from_config

    (folder,) = options.exactly(free, "plan takes one program or artefact", "plan PROGRAM target=cortex_a76")
    kernels = from_config(chosen.target).resolve().kernels()
    for name, program in open_parts(Path(folder)).items():
        if name:
            print(f"{name}:")
        print(plan_of(program, kernels).describe())
