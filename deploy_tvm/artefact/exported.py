"""Folders that an export has written: the program and what stands beside it, compiled together.

A language model's export leaves its words in ``vocabulary.json``, a recognizer's its units in ``units.json``.  The
artefact carries them along, so that it can be used wherever it is taken.
"""

from __future__ import annotations

from pathlib import Path

import deploy_tvm
from deploy_tvm.targets import Target
from irnn.data.speech.units import UNITS_FILE, Units
from irnn.data.text.vocabulary import VOCABULARY_FILE, Vocabulary
from irnn.errors import IrnnError
from irnn.program import Program, storage
from irnn.program.sets import ProgramSet

# Key of a program's metadata that holds its words, in the order of their ids.
WORDS = "vocabulary"


def build(source: Path, folder: Path, target: str | Target = "host") -> Program | ProgramSet:
    """Compile what ``source`` holds into ``folder``, as :func:`deploy_tvm.build` does, with its words or units.

    Returns what was compiled.  Words of another number than the program's ids are an ``IrnnError``.
    """
    program = storage.load(source)
    if isinstance(program, ProgramSet):
        units = Units.load(source) if (source / UNITS_FILE).is_file() else None
        deploy_tvm.build(program, folder, target, units)
        return program
    if (source / VOCABULARY_FILE).is_file():
        program.metadata[WORDS] = _words(source / VOCABULARY_FILE, token_count(program))
    deploy_tvm.build(program, folder, target)
    return program


def token_count(program: Program) -> int:
    """How many token ids a language model's program knows; a program of another kind is an ``IrnnError``."""
    ((_, value),) = program.inputs.items()
    if value.shape or value.high is None:
        raise IrnnError("this program reads features, not token ids: it has no words and no next tokens")
    return value.high + 1


def _words(path: Path, count: int) -> list[str]:
    words = Vocabulary.load(path).words
    if len(words) != count:
        raise IrnnError(f"{path} has {len(words)} words, the program beside it {count} ids: export the program again")
    return words
