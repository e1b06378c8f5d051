"""The configuration of a classifier's run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from irnn.data.labelled.base import LabelledConfig
from irnn.data.labelled.corpus import SOURCES
from pipelines.sections import need_positive, need_source, read_section


@dataclass(frozen=True)
class ClassifierOptions:
    """The section `problem`."""

    name: str


@dataclass(frozen=True)
class ClassifierEvaluation:
    """batch_size: sequences that are evaluated at once.
    interpreter_sequences: of dev and of test, on which QAT, interpreter and TVM are compared; None: all."""

    batch_size: int
    interpreter_sequences: int | None

    def __post_init__(self) -> None:
        need_positive("evaluation.batch_size", self.batch_size)
        if self.interpreter_sequences is not None:
            need_positive("evaluation.interpreter_sequences", self.interpreter_sequences)


def read_data(section: Mapping[str, Any]) -> LabelledConfig:
    """The section `data`, of the class of its source."""
    return read_section(SOURCES[need_source(section, "classifier", SOURCES)][0], section, "data.")
