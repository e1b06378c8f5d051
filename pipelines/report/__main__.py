"""`python -m pipelines.report FOLDER ...`: write the page `report.html` of runs and sweeps anew, into their folders."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from irnn.errors import IrnnError
from irnn.extras import extra


def main(arguments: list[str]) -> int:
    """Exit code: 0, 1 for bad input (one line on stderr), 2 for a wrong command line."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.report", description="The page of runs and of sweeps.")
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="outputs/NAME/HASH of a complete run, or of a sweep"
    )
    options = parser.parse_args(arguments)
    try:
        with extra("train"):
            from pipelines.report.report import RESULTS
            from pipelines.report.run_page import write_run_page
            from pipelines.report.sweep_page import write_sweep_page
            from pipelines.sweep.sweep import FILE
        for folder in options.folders:
            if (folder / FILE).is_file():
                print(write_sweep_page(folder))
            elif (folder / RESULTS).is_file():
                print(write_run_page(folder))
            else:
                raise IrnnError(f"{folder} holds neither {RESULTS} nor {FILE}: give the folder of a run or of a sweep")
    except KeyError as lacking:
        why = f"{folder / RESULTS} lacks {lacking}: another version wrote it; run the experiment again"
        print(f"error: {why}, finished stages are not repeated", file=sys.stderr)
        return 1
    except IrnnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
