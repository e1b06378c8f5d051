"""The classic language-model layout: parallel contiguous streams, cut into chunks for truncated backpropagation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from irnn.batch_part import Part
from irnn.errors import IrnnError


class TextBatches(IterableDataset):
    """Cut one token stream into `batch_size` contiguous rows and yield them `steps` tokens at a time, in order.

    Yields `(ids, targets)`, both int64 [batch_size, steps] (the last chunk is shorter); `targets` is `ids` one token
    later, and the stream starts after an `<eos>`. Row b of one chunk continues row b of the chunk before, so the
    recurrent state is carried from chunk to chunk. Tokens that do not fill all rows evenly are left out. Every
    iteration yields the same batches. `ids` may lie in a mapped file: what is not yielded is not read.

    part: of the rows these alone are yielded, to one of several processes that train together.
    """

    def __init__(self, ids: np.ndarray, eos: int, batch_size: int, steps: int, part: Part | None = None) -> None:
        if batch_size < 1 or steps < 1:
            raise IrnnError(f"batch_size={batch_size}, steps={steps}: both must be at least 1")
        columns = len(ids) // batch_size
        if columns == 0:
            raise IrnnError(f"{len(ids)} tokens do not fill {batch_size} rows; take a smaller batch_size or more text")
        self._rows = ids[: columns * batch_size].reshape(batch_size, columns)
        self._eos = eos
        self._part = part or Part()
        self._own = self._part.rows(batch_size)
        self.batch_size = batch_size
        self.steps = steps

    def __len__(self) -> int:
        return -(-self._rows.shape[1] // self.steps) if self._part.owns(self.batch_size) else 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self) * self.steps, self.steps):
            targets = self._rows[self._own, start : start + self.steps].astype(np.int64)
            ids = np.empty_like(targets)
            ids[:, 1:] = targets[:, :-1]
            ids[:, 0] = self._before(start)
            yield torch.from_numpy(ids), torch.from_numpy(targets)

    def _before(self, start: int) -> np.ndarray:
        """The token before `start` of each row; before the first of a row comes the last of the row above."""
        if start:
            return self._rows[self._own, start - 1]
        ends = self._rows[max(self._own.start - 1, 0) : self._own.stop - 1, -1]
        return ends if self._own.start else np.concatenate([[self._eos], ends])
