"""Language models on disk that help a recognizer's search: an integer program, or what TVM made of one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import irnn
from irnn.arithmetic.torch_ops import TORCH
from irnn.data.speech.units import Units
from irnn.errors import IrnnError
from irnn.program.interpreter import Interpreter
from irnn.program.storage import PROGRAM_FILE, program_hash
from irnn.recognition.decoding import SearchConfig, Step
from irnn.recognition.recognizer import program_step
from pipelines.problems.speech.settings import SearchSettings

# A compiled model's folder holds its code beside the program (`deploy_tvm.artefact.artefact`).
_COMPILED = "library-*.so"


@dataclass(frozen=True)
class SavedLanguageModel:
    """step: what a search asks.  kind: "integer" or "compiled".  program_hash: equal for equal integers, whatever
    executes them (`irnn.program.storage.program_hash`)."""

    step: Step
    kind: str
    program_hash: str


def load_language_model(folder: Path, units: Units) -> SavedLanguageModel:
    """The language model in a folder, which was trained in a recognizer's `units`; anything else is an `IrnnError`."""
    if (folder / PROGRAM_FILE).is_file():
        program = irnn.load(folder)
        if program.kind != "integer":
            raise IrnnError(f"{folder} is a float program, which has to be compiled; give the run's program/")
        run: Any = Interpreter(program, TORCH)
        kind, identity = "integer", program_hash(program)
    elif any(folder.glob(_COMPILED)):
        import deploy_tvm

        run = deploy_tvm.load(folder)
        program, kind, identity = run.program, "compiled", run.program_hash
    else:
        raise IrnnError(
            f"{folder} holds no language model; search.language_model takes the program/ (integers) or artefact/ "
            "(compiled) of a language model's run"
        )
    if "units" not in program.metadata:
        raise IrnnError(
            f"{folder} was not trained in the units of a recognizer; train it with data=transcripts, or with data=text "
            "data.units=RECOGNIZER"
        )
    units.check_matches(program.metadata["units"], str(folder))
    return SavedLanguageModel(program_step(program, run), kind, identity)


def open_search(settings: SearchSettings, units: Units) -> tuple[SearchConfig, SavedLanguageModel | None]:
    """What searches for `units`, and the language model that goes with it, if any."""
    values = dataclasses.asdict(settings)
    folder = values.pop("language_model")
    return SearchConfig(**values), None if folder is None else load_language_model(Path(folder), units)
