"""A matrix that a problem wants seen, as JSON beside its other files: the report draws every one that it finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.core.manifest import write_json

SUFFIX = "_matrix.json"


@dataclass(frozen=True)
class Matrix:
    """values: [rows][columns], from 0 to 1.  rows, columns: their names; columns that are places along an axis have
    none, and `span` says from where to where they go.  labels: what rows and columns are.  title: one sentence."""

    title: str
    values: Sequence[Sequence[float]]
    labels: tuple[str, str]
    rows: Sequence[str]
    columns: Sequence[str] | None = None
    span: tuple[float, float] | None = None

    def save(self, folder: Path, name: str) -> str:
        """Write `<name>_matrix.json` into a stage's folder; the name of the file."""
        write_json(folder / f"{name}{SUFFIX}", asdict(self))
        return f"{name}{SUFFIX}"
