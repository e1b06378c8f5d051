"""The configuration of a recognizer's run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irnn.data.speech.corpus import SOURCES, speech_config_class
from irnn.data.speech.speech_config import SpeechConfig
from irnn.errors import IrnnError
from irnn.recognition.decoding import SearchConfig
from pipelines.sections import need_positive, need_source, read_section


@dataclass(frozen=True)
class SpeechOptions:
    """The section `problem`.  pretrained_encoder: folder of a recognizer's float stage, with whose encoder the float
    training of this recognizer starts; or None."""

    name: str
    pretrained_encoder: Path | None = None


@dataclass(frozen=True)
class SearchSettings(SearchConfig):
    """language_model: folder of the model that `lm_weight` weighs (`language_models`), or None."""

    language_model: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lm_weight > 0 and self.language_model is None:
            raise IrnnError(
                f"search.lm_weight={self.lm_weight:g} needs a language model: set search.language_model=FOLDER, or "
                "search.lm_weight=0"
            )
        if self.lm_weight == 0 and self.language_model is not None:
            raise IrnnError(
                f"search.language_model={self.language_model} has no weight: set search.lm_weight, for example to 0.3"
            )


@dataclass(frozen=True)
class SpeechEvaluation:
    """interpreter_utterances: utterances of each split on which QAT and interpreter are compared.
    search: how utterances are recognized."""

    interpreter_utterances: int
    search: SearchSettings

    def __post_init__(self) -> None:
        need_positive("evaluation.interpreter_utterances", self.interpreter_utterances)


def read_data(section: Mapping[str, Any]) -> SpeechConfig:
    """The section `data`, of the class of its source."""
    source = need_source(section, "speech", SOURCES)
    return read_section(speech_config_class(source), section, "data.")
