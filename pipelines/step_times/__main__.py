"""`python -m pipelines.step_times`: what a training step of each stage of a run takes on this processor.

Arguments are those of `run.py`, and `against=[torch,brevitas]`, `peers_python=FILE` (the Python of an environment that
has those libraries), `rounds=N` and `seconds=S` (of each network, all rounds together), `json=FILE` (in place
of `<output_dir>/step_times/<name>.json`; as docs/results/step_times_NAME.json it is a column of docs/scale.md).

Every network has a process of its own on one core and is trained on the run's batches, as a run does it: forward,
backward, clipping, the optimizer's step. They take turns, so that a machine that slows down slows all. The other
libraries' networks have the same sizes and read random tokens.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from irnn.errors import IrnnError
from irnn.extras import extra

OWN = ("against", "peers_python", "rounds", "seconds", "json")


def main(arguments: list[str]) -> int:
    """Exit code: 0, 1 for bad input (one line on stderr)."""
    try:
        with extra("train"):
            from pipelines.composed import compose_run
            from pipelines.core.manifest import write_json
            from pipelines.sections import read_section
            from pipelines.step_times.measured import Settings, measured, table
            from pipelines.watch.console import console, print_whole
        config, own = compose_run(arguments, OWN)
        usual: dict[str, Any] = {"against": ["torch"], "peers_python": None, "rounds": 10, "seconds": 20.0}
        path = Path(own.pop("json", config.output_dir / "step_times" / f"{config.name}.json"))
        settings = read_section(Settings, usual | own, "")
        run = [argument for argument in arguments if argument.partition("=")[0] not in OWN]
        result = measured(config, run, settings, lambda text: console.print(text, markup=False))
        print_whole(table(result))
        write_json(path, result)
        console.print(f"written: {path}", markup=False)
    except IrnnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
