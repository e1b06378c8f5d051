"""Recognizers on disk: a float stage's folder, a program, what TVM made of one; each knows its units and features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import irnn
from irnn.data.audio.features import FeatureConfig, Normalization, filterbank
from irnn.data.audio.reading import read_audio
from irnn.data.speech.units import BLANK, BOS, EOS, Units
from irnn.data.text.text_files import read_json
from irnn.errors import IrnnError
from irnn.models.speech import SpeechModel, SpeechModelConfig
from irnn.program.sets import SET_FILE, ProgramSet
from irnn.program.storage import PROGRAM_FILE
from irnn.recognition.decoding import SearchConfig, Step, Tokens
from irnn.recognition.recognizer import ModelRecognizer, ProgramRecognizer, Recognizer, fast_interpreter, search
from pipelines.core.checkpoints import load_weights
from pipelines.problems.speech.language_models import open_search
from pipelines.problems.speech.settings import SearchSettings

# What makes the folder of a float stage a recognizer: architecture and metadata.
FLOAT_MODEL = "recognizer.json"
# What `deploy_tvm` calls the index of a compiled set.
_COMPILED_SET = "artefacts.json"


@dataclass(frozen=True)
class SavedRecognizer:
    """recognizer: what searches.  kind: "float", "integer" or "compiled".  search: how the model was meant to be
    searched.  max_seconds: the longest utterance that the training allowed, or None.  lm_step: the language model
    that `search.lm_weight` weighs; none is saved with a recognizer."""

    recognizer: Recognizer
    kind: str
    units: Units
    features: FeatureConfig
    normalization: Normalization
    search: SearchConfig
    max_seconds: float | None
    lm_step: Step | None = None

    def searching(self, settings: SearchSettings) -> SavedRecognizer:
        """The same recognizer with another search, with a language model where that names one."""
        config, model = open_search(settings, self.units)
        return replace(self, search=config, lm_step=None if model is None else model.step)

    def transcribe(self, path: Path) -> str:
        """What is said in an audio file of any sample rate, mono or stereo; bad audio is an `IrnnError`."""
        samples = read_audio(path, self.features.sample_rate)
        seconds = len(samples) / self.features.sample_rate
        if self.max_seconds is not None and seconds > self.max_seconds:
            raise IrnnError(
                f"{path} lasts {seconds:.2f} s, longer than the {self.max_seconds:g} s that this recognizer was "
                "trained for; cut it at a pause"
            )
        x = self.normalization.apply(filterbank(samples, self.features, str(path)))
        tokens = Tokens(BOS, EOS, forbidden=(BLANK,))
        (found,) = search(self.recognizer, x[None], [len(x)], tokens, self.search, self.lm_step)
        return self.units.decode(found.tokens)


def load_recognizer(folder: Path) -> SavedRecognizer:
    """The recognizer in a folder; anything else there is an `IrnnError` that says what is wanted."""
    if (folder / _COMPILED_SET).is_file():
        import deploy_tvm

        runners = deploy_tvm.load(folder)
        recognizer: Recognizer = ProgramRecognizer(runners.programs, runners)
        return _saved(folder, recognizer, "compiled", runners.metadata)
    if (folder / SET_FILE).is_file():
        programs = irnn.load(folder)
        return _saved(folder, ProgramRecognizer(programs, _interpreter(folder, programs)), "integer", programs.metadata)
    if (folder / FLOAT_MODEL).is_file():
        return _float(folder)
    if (folder / PROGRAM_FILE).is_file() or (folder / "program" / PROGRAM_FILE).is_file():
        raise IrnnError(f"{folder} holds a language model; give the folder of a recognizer")
    raise IrnnError(
        f"{folder} holds no recognizer; give a run's program/ (integers) or artefact/ (compiled), or a float stage "
        "(outputs/stages/float_matched-HASH)"
    )


def _interpreter(folder: Path, programs: ProgramSet) -> dict[str, Any]:
    if any(program.kind != "integer" for program in programs.values()):
        raise IrnnError(
            f"{folder} is a float program, which has to be compiled; give a run's float_artefact/ or the folder of its "
            "stage float_matched"
        )
    return fast_interpreter(programs)


def _float(folder: Path) -> SavedRecognizer:
    content = read_json(folder / FLOAT_MODEL)
    try:
        config, metadata = SpeechModelConfig(**content["model"]), content["metadata"]
    except (ValueError, KeyError, TypeError) as error:
        raise IrnnError(f"{folder / FLOAT_MODEL} cannot be read ({error!r}); run the stage again") from None
    model = SpeechModel(config)
    weights = load_weights(folder)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if {name: tensor.shape for name, tensor in weights.items()} != expected:
        raise IrnnError(f"the weights in {folder} do not fit its {FLOAT_MODEL}; run the stage again")
    model.load_state_dict(weights)
    return _saved(folder, ModelRecognizer(model.eval()), "float", metadata)


def _saved(folder: Path, recognizer: Recognizer, kind: str, metadata: dict[str, Any]) -> SavedRecognizer:
    units = Units.load(folder)
    try:
        described, normalization = metadata["units"], metadata["normalization"]
        features, config = FeatureConfig(**metadata["features"]), SearchConfig(**metadata["search"])
        mean, deviation = (np.asarray(normalization[key], np.float32) for key in ("mean", "std"))
        max_seconds = metadata["max_seconds"]
    except (KeyError, TypeError) as error:
        raise IrnnError(f"{folder} does not say how its features are made ({error!r}); export it again") from None
    units.check_matches(described, str(folder))
    normal = Normalization(mean, deviation, features.utterance_mean)
    return SavedRecognizer(recognizer, kind, units, features, normal, config, max_seconds)
