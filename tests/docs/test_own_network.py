"""The lines for a network of one's own, as README and docs/own_network.md show them, on one of the examples."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.own_networks import LoadForecaster, build
from tests.support.places import ROOT


@pytest.mark.parametrize("page", ["README.md", "docs/own_network.md"])
def test_the_lines_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```py\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (text,) = (block for block in blocks if "MyNet()" in block)
    monkeypatch.chdir(tmp_path)
    torch.save(build(LoadForecaster).state_dict(), "float.pt")
    (x,) = LoadForecaster.example(4, 12, 5)
    trained = []
    names = {
        "MyNet": LoadForecaster,
        "example_inputs": LoadForecaster.example(),
        "batches": [LoadForecaster.example(4, 12, seed) for seed in range(3)],
        "x": x.numpy(),
        "train": trained.append,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec("import torch\nimport irnn\n" + text, names)
    assert len(trained) == 4
    with torch.no_grad():
        expected = names["net"](x)
    assert np.array_equal(names["program"].dequantize(names["integers"]), expected.numpy())
