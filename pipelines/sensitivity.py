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

CHOICES = "choices="


def main(arguments: list[str]) -> int:
    """Exit code: 0, 1 for bad input (one line on stderr)."""
    try:
        with extra("train"):
            from hydra import compose, initialize_config_module
            from hydra.core.override_parser.overrides_parser import OverridesParser
            from hydra.errors import HydraException

            from irnn.matrix_sensitivity import CHOICES as USUAL
            from irnn.matrix_sensitivity import sensitivity
            from pipelines.config import read_config
            from pipelines.core.manifest import write_json
            from pipelines.core.plan import plan
            from pipelines.core.stages import run_stages, stages_until
            from pipelines.core.training import Training
            from pipelines.run import problem_of
            from pipelines.watch.console import console
        try:
            chosen = [argument for argument in arguments if argument.startswith(CHOICES)]
            given = OverridesParser.create().parse_overrides(chosen)
            with initialize_config_module("conf", version_base="1.3"):
                composed = compose("config", [argument for argument in arguments if argument not in chosen])
        except HydraException as error:
            raise IrnnError(f"{' '.join(arguments)}: {str(error).splitlines()[0]}") from None
        choices: Any = given[-1].value() if given else list(USUAL)
        config = read_config(composed, None)
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
