"""Read or prove a program on disk: ``python -m irnn.program describe FOLDER``, or ``check`` in its place."""

from __future__ import annotations

import os
import sys

from irnn.errors import IrnnError
from irnn.program.sets import ProgramSet
from irnn.program.storage import load


def main(arguments: list[str]) -> int:
    """``python -m irnn.program describe|check FOLDER``."""

    if len(arguments) != 2 or arguments[0] not in ("describe", "check"):
        print("usage: python -m irnn.program describe|check FOLDER", file=sys.stderr)
        return 2
    try:
        program = load(arguments[1])
        if arguments[0] == "check":
            program.check()
            parts = list(program.values()) if isinstance(program, ProgramSet) else [program]
            operations = sum(1 for part in parts for _ in part.walk())
            print(f"integer-only: {operations} operations, {sum(len(part.tensors) for part in parts)} tensors")
        else:
            print(program.describe(), flush=True)
    except IrnnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough; what Python flushes at its end goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
