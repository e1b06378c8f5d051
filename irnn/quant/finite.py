"""NaN and infinity in a tensor, in words."""

from __future__ import annotations

import torch
from torch import Tensor


def not_finite(name: str, x: Tensor) -> str | None:
    """What is wrong with a tensor that holds NaN or infinity, in words; None where nothing is."""
    bad = ~torch.isfinite(x.detach())
    if not bool(bad.any()):
        return None
    place = [int(i) for i in bad.nonzero()[0]]
    return f"{name} holds {int(bad.sum())} numbers that are NaN or infinite, the first at {place}"
