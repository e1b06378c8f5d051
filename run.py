"""Train, quantize, export, compile and measure a recurrent network: `python run.py experiment=quickstart`."""

from __future__ import annotations

import errno
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

# What a user can mend about a file or a disk that fails in the middle of a run; other errors are bugs.
DISK_ERRORS = {
    errno.ENOSPC: "no space left on the disk; free some",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EROFS: "the file system has become read-only; mend that",
    errno.EACCES: "it may not be written to; change its permissions",
    errno.EPERM: "it may not be written to; change its permissions",
    errno.EIO: "the disk does not work; mend that",
}


# Names of matrices are keys that the configuration cannot list beforehand: Hydra takes them as additions.
OPEN_KEYS = ("quant.of.", "quant.of=")


def main() -> None:
    """Run what the command line composes; `quant.of.lstm.0.w_h=4` needs no + in front."""
    sys.argv[1:] = [f"++{given}" if given.startswith(OPEN_KEYS) else given for given in sys.argv[1:]]
    compose()


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def compose(composed: DictConfig) -> tuple[float, float] | None:
    """Run one configuration; whatever the user can mend is one line on stderr and exit code 1.

    What comes back is what a search over configurations goes by (`sweep=mixed_bits`).
    """
    try:
        # Imported here: Hydra's --help and a wrong override need no PyTorch.
        with extra("train"):
            from pipelines.config import read_config
            from pipelines.report.report import goals
            from pipelines.run import run

        found = goals(run(read_config(composed, _command())))
        if found is None and "optuna" in HydraConfig.get().sweeper._target_:
            raise IrnnError(f"until={composed.until}: a search goes by the program's bytes; leave until=program")
        return found
    except IrnnError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on from the last finished epoch")
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        advice = DISK_ERRORS[error.errno]
        sys.exit(f"error: {where}{advice}, and the same command goes on from the last finished epoch")


def _command() -> str:
    """What repeats this run alone, also where a sweep has begun it."""
    given = HydraConfig.get().overrides
    hydras = [override for override in given.hydra if not override.startswith("hydra.mode=")]
    own = [override for override in given.task if not override.startswith("sweep=")]
    return shlex.join(["python", "run.py", *hydras, *own])


if __name__ == "__main__":
    main()
