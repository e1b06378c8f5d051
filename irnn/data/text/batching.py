"""The classic language-model layout: parallel contiguous streams, cut into chunks for truncated backpropagation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from irnn.errors import IrnnError


class TextBatches(IterableDataset):
    """Cut one token stream into `batch_size` contiguous rows and yield them `steps` tokens at a time, in order.

    Yields `(ids, targets)`, both int64 [batch_size, steps] (the last chunk is shorter); `targets` is `ids` one token
    later, and the stream starts after an `<eos>`. Row b of one chunk continues row b of the chunk before, so the
    recurrent state is carried from chunk to chunk. Tokens that do not fill all rows evenly are left out. Every
    iteration yields the same batches.
    """

    def __init__(self, ids: np.ndarray, eos: int, batch_size: int, steps: int) -> None:
        if batch_size < 1 or steps < 1:
            raise IrnnError(f"batch_size={batch_size}, steps={steps}: both must be at least 1")
        columns = len(ids) // batch_size
        if columns == 0:
            raise IrnnError(f"{len(ids)} tokens do not fill {batch_size} rows; take a smaller batch_size or more text")
        used = columns * batch_size
        inputs = np.concatenate([[eos], ids[: used - 1]])
        self._inputs = torch.from_numpy(inputs.reshape(batch_size, columns))
        self._targets = torch.from_numpy(ids[:used].reshape(batch_size, columns).copy())
        self.batch_size = batch_size
        self.steps = steps

    def __len__(self) -> int:
        return -(-self._inputs.shape[1] // self.steps)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, self._inputs.shape[1], self.steps):
            window = slice(start, start + self.steps)
            yield self._inputs[:, window].contiguous(), self._targets[:, window].contiguous()
