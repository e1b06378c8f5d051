"""Batches of labelled sequences, padded to the longest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from irnn.batch_part import Part
from irnn.data.labelled.base import LabelledCorpus


class LabelledBatch(NamedTuple):
    """features: float32 [batch, frames, bins], normalized, padded with 0 (the mean).  frames, labels: int64 [batch]."""

    features: Tensor
    frames: Tensor
    labels: Tensor


class LabelledBatches:
    """One epoch's batches, each sequence once.

    For training (`seed` given) they are drawn anew for every epoch and augmented, and depend on (seed, epoch) alone.
    Without a seed (evaluation) there is one order, that of the split, and no augmentation.
    part: what of every batch is wanted.
    """

    def __init__(
        self,
        corpus: LabelledCorpus,
        split: str,
        batch_size: int,
        seed: int | None = None,
        epoch: int = 0,
        part: Part | None = None,
    ) -> None:
        self._corpus, self._name, self._split = corpus, split, corpus.splits[split]
        self._batch_size, self._seed, self._epoch = batch_size, seed, epoch
        self._part = part or Part()

    def __len__(self) -> int:
        return -(-len(self._split) // self._batch_size)

    def __iter__(self) -> Iterator[LabelledBatch]:
        order = np.arange(len(self._split))
        if self._seed is not None:
            order = np.random.default_rng([self._seed, self._epoch]).permutation(order)
        for start in range(0, len(order), self._batch_size):
            members = order[start : start + self._batch_size]
            yield self._collate(members[self._part.rows_to_train(len(members))].tolist())

    def owns(self, index: int) -> bool:
        """Whether batch `index` has a row that is the part's; see `Part.rows_to_train`."""
        return self._part.owns(min(self._batch_size, len(self._split) - index * self._batch_size))

    def _collate(self, members: list[int]) -> LabelledBatch:
        labels = torch.from_numpy(self._split.labels[members])
        together = self._corpus.together(self._name, members)
        if together is not None:
            frames = torch.full((len(members),), together.shape[1])
            return LabelledBatch(torch.from_numpy(together), frames, labels)
        features = [torch.from_numpy(self._features(member)) for member in members]
        frames = torch.tensor([len(part) for part in features])
        padded = torch.nn.utils.rnn.pad_sequence(features, batch_first=True)
        return LabelledBatch(padded, frames, labels)

    def _features(self, member: int) -> np.ndarray:
        features = self._split.features(member)
        if self._seed is None:
            return self._corpus.normalization.apply(features)
        return self._corpus.augmented(features, np.random.default_rng([self._seed, self._epoch, member]))
