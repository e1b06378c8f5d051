"""What Hydra calls around a sweep (``conf/config.yaml``, ``hydra.callbacks.sweep``)."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write

from irnn.errors import IrnnError
from pipelines.core.output import need_output
from pipelines.sweep import sweep
from pipelines.watch.console import console, print_whole


class SweepCallback(Callback):
    """Makes the sweep's folder that of its cells, and shows them together in the end.

    What is wrong ends the process here with one line, for Hydra turns an exception in a callback into a warning.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Every cell is composed anew, wherever it is launched: the folder reaches it as one more override."""
        try:
            need_output(Path(str(config.output_dir)))
            folder = sweep.folder_of(config)
            sweep.begin(folder, folder.name.rpartition("-")[0], command_of(config))
        except IrnnError as error:
            sys.exit(f"error: {error}")
        quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{quoted}'")
            config.hydra.sweep.dir = str(folder)
        console.print(f"sweep: {folder}")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """One table of all cells; exit code 1 where some failed."""
        from pipelines.report.sweep_page import write_sweep_page
        from pipelines.report.sweep_table import rows_of, spread_of, table_of

        folder = Path(str(config.hydra.sweep.dir))
        found = sweep.read(folder)
        if not found["cells"]:
            sys.exit(f"error: the sweep has no cells: {found['command']} chooses among no values; name some (KEY=A,B)")
        print_whole(table_of(found, rows := rows_of(found)))
        if (spread := spread_of(rows)) is not None:
            console.print(spread)
        failed = [cell for cell in found["cells"] if cell["state"] != sweep.DONE]
        for cell in failed:
            console.print(f"cell {cell['number']} {cell['state']}: {cell['reason'] or 'it was ended'}", markup=False)
            console.print(f"  {cell['command']}", markup=False)
        console.print(f"the sweep: {folder / sweep.FILE}, {write_sweep_page(folder)}")
        if failed:
            sys.exit(
                f"error: {len(failed)} of {len(found['cells'])} cells have no results; their reasons and commands "
                "stand above, and the same command runs what is missing"
            )


def command_of(config: DictConfig) -> str:
    """What repeats the sweep."""
    given = config.hydra.overrides
    hydras = ["-m" if override == "hydra.mode=MULTIRUN" else override for override in given.hydra]
    return shlex.join(["python", "run.py", *hydras, *given.task])
