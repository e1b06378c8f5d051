"""`python -m pipelines.transcribe MODEL FILE ...`: what is said in audio files, one line a file.

MODEL is a folder: a run's `program/` (integers, by the interpreter) or `artefact/` (compiled), or the folder of a stage
`float` or `float_matched`. Files may have any sample rate, one channel or more, and any format that libsndfile reads.
"""

from __future__ import annotations

import sys
from pathlib import Path

from irnn.errors import IrnnError
from pipelines.recognizers import load_recognizer


def main(arguments: list[str]) -> int:
    """Exit code: 0, 1 for bad input (one line on stderr), 2 for a wrong command line."""
    if len(arguments) < 2 or any(argument.startswith("-") for argument in arguments):
        print("usage: python -m pipelines.transcribe MODEL FILE ...", file=sys.stderr)
        return 2
    model, *files = arguments
    try:
        recognizer = load_recognizer(Path(model))
        for name in files:
            print(f"{name}: {recognizer.transcribe(Path(name))}", flush=True)
    except IrnnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
