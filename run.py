"""Train, quantize, export, compile and measure a recurrent network: `python run.py experiment=quickstart`."""

from __future__ import annotations

import math
import shlex
import sys

from irnn.errors import IrnnError
from irnn.extras import extra

try:
    with extra("train"):
        import hydra
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import DictConfig
except IrnnError as missing:
    sys.exit(f"error: {missing}")


# Names of matrices are keys that the configuration cannot list beforehand: Hydra takes them as additions.
OPEN_KEYS = ("quant.of.", "quant.of=")
# What belongs to a sweep and not to one of its runs.
_OF_SWEEPS = ("hydra.mode=", "hydra.sweep", "hydra/sweep", "hydra.launcher", "hydra/launcher", "sweep=", "launcher=")


def main() -> None:
    """Run what the command line composes; `quant.of.lstm.0.w_h=4` needs no + in front."""
    from pipelines.sweep.launchers import need_launcher

    sys.argv[1:] = [f"++{given}" if given.startswith(OPEN_KEYS) else given for given in sys.argv[1:]]
    try:
        need_launcher(sys.argv[1:])
        compose()
    except IrnnError as error:
        sys.exit(f"error: {error}")


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def compose(composed: DictConfig) -> tuple[float, float] | None:
    """Run one configuration; whatever the user can mend is one line on stderr and exit code 1.

    What comes back is what a search over configurations goes by (`sweep=mixed_bits`); NaN: the trial failed.
    """
    from pipelines.failures import line_of

    try:
        # Imported here: Hydra's --help and a wrong override need no PyTorch.
        with extra("train"):
            from pipelines.config import read_config
            from pipelines.core.follow import follow_launched, follows
            from pipelines.report.report import goals
            from pipelines.run import run
            from pipelines.sweep.cells import cell_of, sweep_of

        sweep = sweep_of(HydraConfig.get())
        if follows(sweep):
            follow_launched(read_config(composed))
            return None
        search = "optuna" in HydraConfig.get().sweeper._target_
        with cell_of(HydraConfig.get(), command := _command()) as outcome:
            outcome.results = run(read_config(composed, command, sweep))
        if outcome.results is None:
            return (math.nan, math.nan) if search else None
        found = goals(outcome.results)
        if found is None and search:
            raise IrnnError(f"until={composed.until}: a search goes by the program's bytes; leave until=program")
        return found
    except (Exception, KeyboardInterrupt) as error:
        if (line := line_of(error)) is None:
            raise
        sys.exit(line if isinstance(error, KeyboardInterrupt) else f"error: {line}")


def _command() -> str:
    """What repeats this run alone, also where a sweep has begun it."""
    given = HydraConfig.get().overrides
    own = [override for override in (*given.hydra, *given.task) if not override.startswith(_OF_SWEEPS)]
    return shlex.join(["python", "run.py", *own])


if __name__ == "__main__":
    main()
