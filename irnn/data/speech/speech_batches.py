"""Batches of utterances of similar length, padded, under a budget of frames."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from irnn.batch_part import Part
from irnn.data.audio.augment import random_level, random_voice, spec_augment
from irnn.data.speech.corpus import SpeechCorpus, SpeechSplit
from irnn.data.speech.units import BLANK, BOS, EOS
from irnn.errors import IrnnError

# Target of padded positions: PyTorch's cross-entropy leaves it out.
IGNORE = -100
# Utterances count as equally long within 5 %: what stands together in a batch then changes from epoch to epoch.
_LENGTH_STEP = 1.05


class SpeechBatch(NamedTuple):
    """features: float32 [batch, frames, bins], normalized, padded with 0 (the mean).  frames: int64 [batch].
    units: int64 [batch, units] without begin and end, padded with the blank.  unit_counts: int64 [batch].
    decoder_inputs: int64 [batch, units + 1], begin + units, padded with end.
    decoder_targets: int64 [batch, units + 1], units + end, padded with IGNORE.
    indices: int64 [batch], positions in the split."""

    features: Tensor
    frames: Tensor
    units: Tensor
    unit_counts: Tensor
    decoder_inputs: Tensor
    decoder_targets: Tensor
    indices: Tensor


class SpeechBatches(Dataset):
    """All batches of one epoch, in order: item k is a `SpeechBatch`. Every utterance comes exactly once,
    but for the long ones in the epochs of a `curriculum` (`BatchConfig`).

    For training (`seed` given) batches are drawn anew for every epoch (`set_epoch`) and augmented; an epoch's batches
    depend on (seed, epoch) alone, not on what was read before or by which worker. Without a seed (evaluation) there is
    one fixed order, shortest first, and no augmentation. Use with `DataLoader(..., batch_size=None)`.
    part: what of every batch is wanted; it may be set later.
    """

    def __init__(self, corpus: SpeechCorpus, split: str, seed: int | None = None, curriculum: int = 0) -> None:
        self.part = Part()
        self.corpus = corpus
        self.split: SpeechSplit = corpus.split(split)
        self.seed = seed
        self.curriculum = curriculum
        longest = int(self.split.frames.max())
        budget = corpus.config.batches.max_frames
        if longest > budget:
            name = self.split.utterances[int(self.split.frames.argmax())].where
            raise IrnnError(
                f"{name} has {longest} frames, more than batches.max_frames={budget}; raise that, or set "
                "`max_seconds` and leave_out=true"
            )
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the batches of `epoch`; call it before the epoch's `DataLoader` is iterated."""
        self.epoch = epoch
        self._batches = self._draw()

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> SpeechBatch:
        if not 0 <= index < len(self._batches):
            raise IndexError(index)
        members = self._batches[index][self.part.rows_to_train(len(self._batches[index]))]
        return collate(
            [self._features(int(member)) for member in members],
            [self.split.units[member] for member in members],
            members,
        )

    def owns(self, index: int) -> bool:
        """Whether batch `index` has a row that is the part's; see `Part.rows_to_train`."""
        return self.part.owns(len(self._batches[index]))

    def _draw(self) -> list[np.ndarray]:
        frames = self.split.frames
        if self.seed is None:
            return self._cut(np.argsort(frames, kind="stable"))
        generator = np.random.default_rng([self.seed, self.epoch])
        shuffled = generator.permutation(len(frames))
        classes = np.floor(np.log(frames[shuffled]) / np.log(_LENGTH_STEP))
        batches = self._cut(shuffled[np.argsort(classes, kind="stable")])  # the shortest come first
        if self.epoch < self.curriculum:
            batches = batches[: math.ceil(len(batches) * (self.epoch + 1) / (self.curriculum + 1))]
        return [batches[k] for k in generator.permutation(len(batches))]

    def _cut(self, order: np.ndarray) -> list[np.ndarray]:
        limits = self.corpus.config.batches
        batches, start, longest = [], 0, 0
        for position, member in enumerate(order):
            longest = max(longest, int(self.split.frames[member]))
            rows = position + 1 - start
            if rows > limits.max_utterances or rows * longest > limits.max_frames:
                batches.append(order[start:position])
                start, longest = position, int(self.split.frames[member])
        return [*batches, order[start:]]

    def _features(self, member: int) -> np.ndarray:
        features, config = self.split.features(member), self.corpus.config.augment
        if self.seed is None:
            return self.corpus.normalization.apply(features)
        generator = np.random.default_rng([self.seed, self.epoch, member])
        louder = random_level(features, config, generator)
        other = random_voice(louder, config, generator)
        return spec_augment(self.corpus.normalization.apply(other), config, generator)


def collate(features: list[np.ndarray], units: list[np.ndarray], indices: np.ndarray) -> SpeechBatch:
    """Pad normalized features (each float32 [frames, bins]) and ids (each int64 [units]) to one `SpeechBatch`."""
    rows, bins = len(features), features[0].shape[1]
    frames = [len(part) for part in features]
    counts = [len(ids) for ids in units]
    batch = SpeechBatch(
        features=torch.zeros(rows, max(frames), bins),
        frames=torch.tensor(frames),
        units=torch.full((rows, max(counts)), BLANK),
        unit_counts=torch.tensor(counts),
        decoder_inputs=torch.full((rows, max(counts) + 1), EOS),
        decoder_targets=torch.full((rows, max(counts) + 1), IGNORE),
        indices=torch.from_numpy(np.asarray(indices, dtype=np.int64)),
    )
    batch.decoder_inputs[:, 0] = BOS
    for row, (part, ids) in enumerate(zip(features, units, strict=True)):
        batch.features[row, : len(part)] = torch.from_numpy(part)
        known = torch.from_numpy(ids)
        batch.units[row, : len(ids)] = known
        batch.decoder_inputs[row, 1 : len(ids) + 1] = known
        batch.decoder_targets[row, : len(ids)] = known
        batch.decoder_targets[row, len(ids)] = EOS
    return batch
