"""What docs/results/foreign.json holds is about the examples as they are: every one, and no integer differs."""

from __future__ import annotations

import json

from examples.foreign import RESULTS
from examples.own_networks import NETWORKS


def test_every_network_has_its_row_and_no_integer_differs() -> None:
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["networks"]
    assert [row["network"] for row in rows] == [network.__name__ for network in NETWORKS]
    for row in rows:
        assert row["integers"] > 0
        assert (row["mismatches_eval"], row["mismatches_tvm"]) == (0, 0)
        assert row["float_gap"] < 1e-5
        assert row["error_calibrated"] < 0.015
