"""A sweep's rows: what a cell's program is compared with."""

import json
from pathlib import Path

import pytest

from pipelines.report.sweep_table import rows_of
from tests.pipelines.test_publish import low_bit_run


@pytest.mark.parametrize(
    ("post_training", "floating"), [(False, 99.0), ("activations", 99.0), (True, 101.0), ("compensated", 101.0)]
)
def test_a_program_is_compared_with_the_float_network_that_was_trained_as_long(
    tmp_path: Path, post_training: bool | str, floating: float
) -> None:
    run = json.loads((low_bit_run(tmp_path / "run", 1, 110.0) / "results.json").read_text())
    run["config"]["post_training"] = post_training
    cell = {"number": 0, "overrides": ["seed=1"], "status": "done", "folder": None, "message": None, "results": run}
    (row,) = rows_of({"cells": [cell]})
    assert (row.figure, row.floating) == (110.0, floating)
