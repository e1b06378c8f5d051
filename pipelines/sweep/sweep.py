"""A sweep's folder, ``<output_dir>/sweeps/<name>-<digest>/``, and ``sweep.json`` in it: the cells and what became of
them, whichever process ran them.

The digest is that of what was asked for, so the same command finds the same folder again.  Each cell writes itself into
``sweep.json`` as it begins and ends, under a lock: after a kill the file says what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from omegaconf import DictConfig, OmegaConf

from irnn.errors import IrnnError
from pipelines.core.manifest import digest_of, write_json

FILE = "sweep.json"
FORMAT = 1
# States of a cell. One that was killed stays `RUNNING` until the sweep is run again.
RUNNING, DONE, FAILED, INTERRUPTED = "running", "done", "failed", "interrupted"
# Keys that change nothing of what a cell computes.
_ASIDE = ("output_dir", "logger", "launcher", "trainer.progress")

Sweep = dict[str, Any]  # content of a sweep.json
Cell = dict[str, Any]  # overrides, number, command, state, reason, digest, seconds, results


def folder_of(config: DictConfig) -> Path:
    """Where the sweep that Hydra has composed lives; equal for equal sweeps, in whatever order their words stand."""
    hydra = config.hydra
    params = OmegaConf.select(config, "hydra.sweeper.params")
    swept: Any = OmegaConf.to_container(params, resolve=True) if params is not None else {}
    digest = digest_of([sorted(_asked(hydra.overrides.task).items()), swept, hydra.sweeper._target_])
    preset = OmegaConf.select(config, "hydra.runtime.choices.sweep")
    named = [name for name in (config.name, preset) if name not in (None, "null")]
    if preset is not None and any(key == "experiment" for key in swept):
        named = [preset]  # the experiments are the sweep's own
    return Path(str(config.output_dir)) / "sweeps" / f"{'_'.join(named)}-{digest}"


def begin(folder: Path, name: str, command: str) -> None:
    """Note the sweep's own facts; the cells of an earlier attempt stay."""

    def noted(sweep: Sweep) -> None:
        sweep |= {"name": name, "digest": folder.name.rpartition("-")[2], "command": command}

    _change(folder, noted)


def record(folder: Path, cell: Cell) -> None:
    """Put a cell into ``sweep.json``, in place of what it was: a finished one stays so while it is looked at again."""

    def recorded(sweep: Sweep) -> None:
        found = {digest_of(choices_of(other)): other for other in sweep["cells"]}
        before = found.get(key := digest_of(choices_of(cell)))
        if before is None or before["state"] != DONE or cell["state"] in (DONE, FAILED):
            found[key] = cell
        sweep["cells"] = sorted(found.values(), key=lambda one: one["number"])

    _change(folder, recorded)


def read(folder: Path) -> Sweep:
    """The ``sweep.json`` of a folder; one that is absent, damaged or of another version is an ``IrnnError``."""
    path = folder / FILE
    try:
        sweep = json.loads(path.read_text(encoding="utf-8"))
        written = sweep["format"]
    except FileNotFoundError:
        raise IrnnError(f"{folder} holds no {FILE}: give the folder of a sweep (outputs/sweeps/NAME-DIGEST)") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise IrnnError(f"{path} is damaged; delete it and run the sweep again, finished stages stay") from None
    if written != FORMAT:
        raise IrnnError(
            f"{path} is of format {written}, this version writes {FORMAT}; delete it and run the sweep again, finished "
            "stages stay"
        )
    return sweep


def _change(folder: Path, change: Callable[[Sweep], None]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        sweep = read(folder) if (folder / FILE).is_file() else {"format": FORMAT, "cells": []}
        change(sweep)
        cells = sweep.pop("cells")  # last, for they are long
        write_json(folder / FILE, sweep | {"cells": cells})


def swept_keys(cells: Sequence[Cell]) -> list[str]:
    """The keys in which the cells differ, as their overrides name them."""
    choices = [choices_of(cell) for cell in cells]
    keys = dict.fromkeys(key for chosen in choices for key in chosen)
    return [key for key in keys if len({chosen.get(key) for chosen in choices}) > 1]


def choices_of(cell: Cell) -> dict[str, str]:
    """What the cell's overrides choose, by key: this tells cells of a sweep apart."""
    return _asked(cell["overrides"])


def _asked(overrides: Iterable[str]) -> dict[str, str]:
    """Values by key, of an override that is given twice the last, without what changes nothing of the result."""
    pairs = (override.lstrip("+").partition("=") for override in overrides)
    return {key: value for key, _, value in pairs if not any(f"{key}.".startswith(f"{aside}.") for aside in _ASIDE)}
