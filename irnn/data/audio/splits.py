"""What every corpus of recordings has of a split: its usable utterances, and their features."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from irnn.data.audio.feature_cache import FeatureTable
from irnn.data.audio.utterances import Utterance
from irnn.data.left_out import LeftOut


@dataclass(frozen=True)
class AudioSplit:
    """The usable utterances of one split, and those that were left out.

    table: the features of all that were asked for.  rows: which of them the utterances are.
    """

    utterances: list[Utterance]
    left_out: list[LeftOut]
    table: FeatureTable
    rows: list[int]

    def __len__(self) -> int:
        return len(self.utterances)

    @cached_property
    def frames(self) -> np.ndarray:
        """Frames of every utterance, int64 [utterances]."""
        return self.table.frames[self.rows]

    def features(self, index: int) -> np.ndarray:
        """float32 [frames, num_mel_bins] of utterance `index`, read-only, not normalized."""
        return self.table[self.rows[index]]
