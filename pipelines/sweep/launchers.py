"""What runs the cells of a sweep, by one word of the command line: `launcher=joblib` (`conf/launcher`).

Each is a plugin that Hydra finds by itself; one that is not installed is told before anything else.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from irnn.errors import IrnnError

# By name: the plugin's module and what brings it.  Hydra's own, one cell after the other, is there always.
LAUNCHERS: dict[str, tuple[str | None, str]] = {
    "basic": (None, ""),
    "joblib": ("hydra_joblib_launcher", "irnn[sweep]"),
    "submitit_local": ("hydra_submitit_launcher", "irnn[sweep]"),
    "submitit_slurm": ("hydra_submitit_launcher", "irnn[sweep]"),
}
_SEARCH = ("sweep=mixed_bits", "hydra/sweeper=optuna")


def need_launcher(given: Sequence[str]) -> None:
    """An `IrnnError` where the command line names a launcher that is unknown, or one whose plugin is absent."""
    for argument in given:
        key, _, name = argument.partition("=")
        if key.lstrip("+") in ("launcher", "hydra/launcher") and "," not in name:
            if name not in LAUNCHERS:
                raise IrnnError(f"{argument} is no launcher; allowed: {', '.join(LAUNCHERS)}")
            _need_plugin(argument, *LAUNCHERS[name])
        if argument in _SEARCH:
            _need_plugin(argument, "hydra_optuna_sweeper", "irnn[sweep]")


def _need_plugin(argument: str, module: str | None, package: str) -> None:
    if module is None:
        return
    try:
        found = importlib.util.find_spec(f"hydra_plugins.{module}")
    except ModuleNotFoundError:  # no plugin of Hydra at all
        found = None
    if found is None:
        raise IrnnError(f"{argument}: the plugin {module} is missing: pip install '{package}'")
