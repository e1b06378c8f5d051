"""The folder that a run writes to, tried before anything is read or trained."""

from __future__ import annotations

from pathlib import Path

from irnn.places import need_folder


def need_output(folder: Path) -> None:
    """An `IrnnError` unless files can be written to `output_dir`."""
    need_folder(folder, f"output_dir={folder}")
