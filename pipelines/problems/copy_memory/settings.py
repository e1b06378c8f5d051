"""The configuration of a run of the copy task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from irnn.data.copy_memory import CopyConfig
from pipelines.sections import need_positive, need_source, read_section


@dataclass(frozen=True)
class CopyOptions:
    """The section `problem`."""

    name: str


@dataclass(frozen=True)
class CopyEvaluation:
    """batch_size: sequences that are evaluated at once.
    interpreter_sequences: of dev and of test, on which QAT, interpreter and TVM are compared."""

    batch_size: int
    interpreter_sequences: int

    def __post_init__(self) -> None:
        need_positive("evaluation.batch_size", self.batch_size)
        need_positive("evaluation.interpreter_sequences", self.interpreter_sequences)


def read_data(section: Mapping[str, Any]) -> CopyConfig:
    """The section `data`."""
    need_source(section, "copy_memory", ("copy",))
    return read_section(CopyConfig, section, "data.")
