"""The copying memory task: what stands where, what depends on what, and its refusals."""

from __future__ import annotations

import math

import pytest
import torch

from irnn.data.copy_memory import CopyBatches, CopyConfig, evaluation_batches
from irnn.errors import IrnnError

SMALL = CopyConfig(delay=5, length=3, batch_size=4, evaluation_sequences=6)


def test_a_pattern_comes_back_after_the_delay() -> None:
    (ids, targets), rest = CopyBatches(SMALL, 6, 4, seed=1)
    assert (ids.shape, rest.ids.shape) == ((4, 11), (2, 11))
    pattern = ids[:, :3]
    assert pattern.min() >= 1
    assert pattern.max() <= 8
    assert torch.equal(targets[:, -3:], pattern)
    assert not targets[:, :-3].any()
    assert torch.equal(ids[:, 3:], torch.tensor([0, 0, 0, 0, 9, 0, 0, 0]).expand(4, -1))


def test_epochs_differ_and_evaluation_stays() -> None:
    first, again, other = (next(iter(CopyBatches(SMALL, 4, 4, 1, epoch))).ids for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    dev, test = (torch.cat([b.ids for b in evaluation_batches(SMALL, split, 4)]) for split in ("dev", "test"))
    assert len(dev) == 6
    assert not torch.equal(dev, test)
    few = next(iter(evaluation_batches(SMALL, "dev", 2, 2))).ids
    assert len(few) == 2


def test_the_baseline_is_the_best_guess() -> None:
    """Blanks are certain, each of the pattern's symbols is one of eight."""
    assert SMALL.baseline == pytest.approx(3 * math.log(8) / 11)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"delay": 9}, "delay=9 is below the pattern's length=10"),
        ({"length": 0}, "length=0 must be at least 1"),
        ({"source": "paste"}, "source='paste' is unknown; allowed: copy"),
    ],
)
def test_bad_settings_are_one_line(change: dict, message: str) -> None:
    with pytest.raises(IrnnError, match=message):
        CopyConfig(**change)
