"""One cell of a sweep: it begins, it ends, and what goes wrong in it is its own."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.types import RunMode

from pipelines.failures import line_of
from pipelines.sweep import sweep
from pipelines.watch.console import console


@dataclass
class Outcome:
    """What a run has measured (``pipelines.report.report.results_of``); None: it failed."""

    results: dict[str, Any] | None = None


def sweep_of(hydra: HydraConf) -> str | None:
    """`<name>-<digest>` of the sweep that this run is a cell of; None outside of one."""
    return Path(hydra.sweep.dir).name if hydra.mode == RunMode.MULTIRUN else None


@contextmanager
def cell_of(hydra: HydraConf, command: str) -> Iterator[Outcome]:
    """Around one run.  In a sweep the cell is noted in ``sweep.json``, and an error in it is its end alone: it is
    printed, the next cell begins.  A run of its own has its errors pass.

    hydra: Hydra's own part of the configuration.  command: what repeats this run alone.
    """
    outcome = Outcome()
    if sweep_of(hydra) is None:
        yield outcome
        return
    folder, started = Path(hydra.sweep.dir), time.monotonic()
    cell: sweep.Cell = {
        "number": hydra.job.num,
        "overrides": list(hydra.overrides.task),
        "command": command,
        "state": sweep.RUNNING,
        "reason": None,
        "digest": None,
        "seconds": None,
        "results": None,
    }
    sweep.record(folder, cell)
    console.print(f"cell {hydra.job.num}: {' '.join(hydra.overrides.task)}", markup=False)
    try:
        yield outcome
    except KeyboardInterrupt:
        sweep.record(folder, cell | {"state": sweep.INTERRUPTED, "seconds": _since(started)})
        raise
    except Exception as error:  # of whatever kind: the other cells do not suffer from it
        if (reason := line_of(error)) is None:
            reason = f"{type(error).__name__}: {error} (a bug)"
            traceback.print_exc()
        sweep.record(folder, cell | {"state": sweep.FAILED, "reason": reason, "seconds": _since(started)})
        console.print(f"cell {hydra.job.num} failed: {reason}", markup=False)
    else:
        assert outcome.results is not None
        done = {"state": sweep.DONE, "digest": outcome.results.get("digest"), "results": outcome.results}
        sweep.record(folder, cell | done | {"seconds": _since(started)})


def _since(started: float) -> float:
    return round(time.monotonic() - started, 2)
