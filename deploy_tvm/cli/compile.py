"""Build the library of a program: `compile PROGRAM target=host out=FOLDER`."""

from __future__ import annotations

import argparse
from pathlib import Path

from deploy_tvm.cli import options
from irnn.errors import IrnnError


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("arguments", nargs="*", metavar="PROGRAM target=NAME out=FOLDER")


def execute(parsed: argparse.Namespace, free: list[str], chosen: options.Options) -> None:
    """Build the library of a program: `compile PROGRAM target=host out=FOLDER`."""
    from deploy_tvm.artefact import exported
    from deploy_tvm.targets import from_config
    from irnn.program import Program

    (folder,) = options.exactly(free, "compile takes one program folder", "compile PROGRAM target=host out=FOLDER")
    if chosen.out is None:
        raise IrnnError("out=FOLDER is missing: name the folder for the compiled library")
    target = from_config(chosen.target)
    program = exported.build(Path(folder), chosen.out, target)
    size = sum(path.stat().st_size for path in chosen.out.rglob("*") if path.is_file())
    what = f"{program.kind} program" if isinstance(program, Program) else f"programs {', '.join(program)}"
    print(f"{chosen.out}: {what} for {target.name}, {size / 1e6:.2f} MB")
    if any(chosen.out.glob("**/objects")):
        print("object files only: set TVM_NDK_CC to the NDK's clang and compile again for a library")
