"""The configuration of a language model's run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from irnn.data import TextConfig
from irnn.data.speech.corpus import speech_config_class
from irnn.data.speech.speech_config import SpeechConfig
from irnn.data.text.corpus import SOURCES
from irnn.errors import arguments_of
from pipelines.sections import need_positive, need_section, need_source, read_section


@dataclass(frozen=True)
class LanguageModelOptions:
    """The section `problem`."""

    name: str


@dataclass(frozen=True)
class TextEvaluation:
    """interpreter_tokens: tokens of each split on which QAT, interpreter and TVM are compared.

    rows: into how many parts, side by side in a batch, a split is cut to be scored; each starts from the first state.
    """

    interpreter_tokens: int
    rows: int

    def __post_init__(self) -> None:
        need_positive("evaluation.interpreter_tokens", self.interpreter_tokens)
        need_positive("evaluation.rows", self.rows)


def read_data(section: Mapping[str, Any]) -> TextConfig:
    """The section `data`; of transcripts, `data.speech` is the `data` of a recognizer."""
    need_source(section, "language_model", SOURCES)
    if section.get("speech") is None:
        return read_section(TextConfig, section, "data.")
    speech = need_section(section["speech"], "data.speech")
    with arguments_of(SpeechConfig, "data.speech."):
        kind = speech_config_class(speech.get("source"))
    speech = read_section(kind, speech, "data.speech.")
    return read_section(TextConfig, {**section, "speech": speech}, "data.")
