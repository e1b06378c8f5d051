"""``torch.nn``'s module and the library's with the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import irnn

CELLS = ("LSTM", "GRU")
ALL = dict(num_layers=2, bidirectional=True, proj_size=2)
BOTH = dict(num_layers=2, bidirectional=True)
each_cell = pytest.mark.parametrize("kind", CELLS)


def pair(kind: str = "LSTM", **arguments: Any) -> tuple[torch.nn.Module, torch.nn.Module]:
    torch.manual_seed(0)
    theirs, ours = (getattr(place, kind)(3, 4, **arguments) for place in (torch.nn, irnn))
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours
