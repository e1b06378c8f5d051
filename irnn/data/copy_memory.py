"""The copying memory task (Hochreiter and Schmidhuber 1997; Arjovsky, Shah and Bengio 2016), generated.

    input    s_1 ... s_L   0 ... 0   9   0 ... 0        L symbols of 1 to 8, delay - 1 blanks, a marker, L blanks
    target   0 ....................... 0  s_1 ... s_L   the symbols again, ``delay`` steps after the pattern's end

Without a memory the best guess costs ``L ln 8`` nats a sequence, the baseline.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from irnn.batch_part import Part
from irnn.errors import IrnnError

SYMBOLS, BLANK, MARKER = 8, 0, 9
VOCABULARY = ("blank", *(f"symbol {k}" for k in range(1, SYMBOLS + 1)), "marker")
SPLITS = ("dev", "test")


@dataclass(frozen=True)
class CopyConfig:
    """delay: steps from the pattern's end to its first symbol again, the T of the tables.  length: of the pattern.
    train_sequences: of an epoch, drawn anew for each.  evaluation_sequences: of dev and of test each, always the same.
    """

    source: str = "copy"
    delay: int = 100
    length: int = 10
    train_sequences: int = 6_400
    evaluation_sequences: int = 1_000
    batch_size: int = 32

    def __post_init__(self) -> None:
        if self.source != "copy":
            raise IrnnError(f"source={self.source!r} is unknown; allowed: copy")
        for name in ("length", "train_sequences", "evaluation_sequences", "batch_size"):
            if getattr(self, name) < 1:
                raise IrnnError(f"{name}={getattr(self, name)} must be at least 1")
        if self.delay < self.length:
            raise IrnnError(
                f"delay={self.delay} is below the pattern's length={self.length}: nothing would have to be remembered "
                "beyond the pattern; make it at least that long"
            )

    @property
    def steps(self) -> int:
        """Of one sequence."""
        return self.delay + 2 * self.length

    @property
    def baseline(self) -> float:
        """Cross-entropy a step, in nats, of the best guess without a memory."""
        return self.length * math.log(SYMBOLS) / self.steps


class CopyBatch(NamedTuple):
    """ids, targets: int64 ``[batch, steps]``."""

    ids: Tensor
    targets: Tensor


class CopyBatches:
    """An epoch's batches, which depend on (seed, epoch) alone; the last one may be shorter.

    part: what of every batch is wanted; it may be set later.
    """

    def __init__(self, config: CopyConfig, count: int, batch_size: int, seed: int, epoch: int = 0) -> None:
        self._config, self._count, self._batch_size, self._seed = config, count, batch_size, [seed, epoch]
        self.part = Part()

    def __len__(self) -> int:
        return -(-self._count // self._batch_size)

    def __iter__(self) -> Iterator[CopyBatch]:
        generator = np.random.default_rng(self._seed)
        for index in range(len(self)):
            batch = copies(self._config, self._size(index), generator)
            rows = self.part.rows_to_train(self._size(index))
            yield CopyBatch(batch.ids[rows], batch.targets[rows])

    def owns(self, index: int) -> bool:
        """Whether batch `index` has a row that is the part's; see `Part.rows_to_train`."""
        return self.part.owns(self._size(index))

    def _size(self, index: int) -> int:
        return min(self._batch_size, self._count - index * self._batch_size)


def copies(config: CopyConfig, count: int, generator: np.random.Generator) -> CopyBatch:
    """Sequences with random patterns."""
    pattern = generator.integers(1, SYMBOLS, (count, config.length), endpoint=True)
    ids, targets = (np.full((count, config.steps), BLANK) for _ in range(2))
    ids[:, : config.length] = pattern
    ids[:, config.length + config.delay - 1] = MARKER
    targets[:, -config.length :] = pattern
    return CopyBatch(torch.from_numpy(ids), torch.from_numpy(targets))


def evaluation_batches(config: CopyConfig, split: str, batch_size: int, count: int | None = None) -> CopyBatches:
    """The sequences of dev or test, or the first ``count`` of them in a batch of that size."""
    return CopyBatches(config, count or config.evaluation_sequences, batch_size, 1_000_003 + SPLITS.index(split))
