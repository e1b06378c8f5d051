"""Train, quantize, export, compile and measure a recurrent network: `python run.py experiment=quickstart`."""

from __future__ import annotations

import errno
import sys

import hydra
from omegaconf import DictConfig

from irnn.errors import IrnnError


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(composed: DictConfig) -> None:
    """Run one configuration; whatever the user can mend is one line on stderr and exit code 1."""
    # Imported here: Hydra's --help and a wrong override need no PyTorch.
    from pipelines.config import read_config
    from pipelines.run import run

    try:
        run(read_config(composed))
    except IrnnError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on from the last finished epoch")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        sys.exit(
            "error: no space left on the disk; free some, and the same command goes on from the last finished epoch"
        )


if __name__ == "__main__":
    main()
