"""`python -m pipelines.sensitivity experiment=quickstart`: which matrices bear few bits.

Arguments are those of `run.py`, and `choices=[8,4,"midrise:2"]`, the codes.

The run's float network is trained where it has not been, then each matrix is quantized alone, in each of the codes, and
the noise at the network's output is measured on the calibration's batches (`irnn.matrix_sensitivity`): what to know
before a search (`sweep=mixed_bits`), and where a network's bits are wasted. The rows are written beside the float stage
as `sensitivity.json`.
"""

from __future__ import annotations

import sys
from typing import Any

from irnn.errors import IrnnError
from irnn.extras import extra

CHOICES = "choices"


def main(arguments: list[str]) -> int:
    """Exit code: 0, 1 for bad input (one line on stderr)."""
    try:
        with extra("train"):
            from irnn.matrix_sensitivity import CHOICES as USUAL
            from irnn.matrix_sensitivity import sensitivity
            from pipelines.composed import compose_run
            from pipelines.core.manifest import write_json
            from pipelines.core.plan import plan
            from pipelines.core.stages import run_stages, stages_until
            from pipelines.core.training import Training
            from pipelines.run import problem_of
            from pipelines.watch.console import console
        config, own = compose_run(arguments, [CHOICES])
        choices: Any = own.get(CHOICES, list(USUAL))
        problem = problem_of(config)
        (stage,) = stages_until(plan(config, problem), "float")
        run_stages([stage])
        model = Training(config, problem).trained_model(stage)
        rows = sensitivity(model, problem.calibration(), choices if isinstance(choices, list) else [choices])
        console.print(rows)
        write_json(stage.folder / "sensitivity.json", {"rows": rows.to_dicts()})
    except IrnnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
