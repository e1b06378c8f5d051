"""`python -m pipelines.transcribe MODEL FILE ... [search.KEY=VALUE ...]`: what is said in audio files, one line a file.

MODEL is a folder: a run's `program/` (integers, by the interpreter) or `artefact/` (compiled), or the folder of a stage
`float` or `float_matched`. Files may have any sample rate, one channel or more, and any format that libsndfile reads.
The search is the one that the model was saved with, but for the keys of `evaluation.search` that are given, for example
`search.beam=8 search.lm_weight=0.3 search.language_model=FOLDER`.
"""

from __future__ import annotations

import dataclasses
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irnn.errors import IrnnError
from irnn.extras import extra
from irnn.recognition.decoding import SearchConfig

if TYPE_CHECKING:
    from pipelines.problems.speech.settings import SearchSettings

_OVERRIDE = re.compile(r"search\.\w*=")


def main(arguments: list[str]) -> int:
    """Exit code: 0, 1 for bad input (one line on stderr), 2 for a wrong command line."""
    overrides = [argument for argument in arguments if _OVERRIDE.match(argument)]
    places = [argument for argument in arguments if argument not in overrides]
    if len(places) < 2 or any(argument.startswith("-") for argument in places):
        print("usage: python -m pipelines.transcribe MODEL FILE ... [search.KEY=VALUE ...]", file=sys.stderr)
        return 2
    model, *files = places
    # A name that is no UTF-8, or a transcript that the screen's encoding lacks, is shown with escapes.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with extra("train"):
            from pipelines.problems.speech.recognizers import load_recognizer

        recognizer = load_recognizer(Path(model))
        recognizer = recognizer.searching(_settings(recognizer.search, overrides))
        for name in files:
            print(f"{name}: {recognizer.transcribe(Path(name))}", flush=True)
    except IrnnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _settings(saved: SearchConfig, overrides: Sequence[str]) -> SearchSettings:
    """The saved search with the given keys changed."""
    with extra("train"):
        from hydra.core.override_parser.overrides_parser import OverridesParser
        from hydra.errors import OverrideParseException

    from pipelines.problems.speech.settings import SearchSettings
    from pipelines.sections import read_section

    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise IrnnError(f"{error.override!r} cannot be read; it takes search.KEY=VALUE") from None
    changed = {override.key_or_group.removeprefix("search."): override.value() for override in parsed}
    return read_section(SearchSettings, dataclasses.asdict(saved) | changed, "search.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
