"""The folder that a run writes to, tried before anything is read or trained."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from irnn.errors import IrnnError
from irnn.places import need_folder


def need_output(folder: Path) -> None:
    """An `IrnnError` unless files can be written to `output_dir`."""
    need_folder(folder, f"output_dir={folder}")


class SweepFolder(Callback):
    """Hydra writes a sweep's settings into the folder before it calls the program, and a failure of that is a
    traceback: this comes first."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Ends the process with one line, for Hydra turns an exception into a warning."""
        try:
            need_output(Path(str(config.output_dir)))
        except IrnnError as error:
            sys.exit(f"error: {error}")
