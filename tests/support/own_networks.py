"""Networks as users write them, in plain ``torch.nn``: what ``irnn.prepare`` takes in, each of another structure.

``build`` gives one in eval mode with random weights; ``network.example(batch, steps, seed)`` is what ``forward`` takes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def randn(*shape: int, seed: int) -> Tensor:
    """Normal numbers that depend on the seed alone."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randint(high: int, *shape: int, seed: int, low: int = 0) -> Tensor:
    """Whole numbers from ``low`` to ``high - 1``."""
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


class PhonemeTagger(nn.Module):
    """Ids, a table, two layers of a bidirectional LSTM time first, a score for each step."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Embedding(40, 10)
        self.keys = nn.LSTM(10, 8, 2, bidirectional=True, dropout=0.1)
        self.scores = nn.Linear(16, 7)

    def forward(self, ids: Tensor) -> Tensor:
        y, _ = self.keys(self.values(ids))
        return self.scores(y)

    @staticmethod
    def example(batch: int = 2, steps: int = 9, seed: int = 0) -> tuple[Any, ...]:
        return (randint(40, steps, batch, seed=seed),)


class GestureClassifier(nn.Module):
    """Sensor channels first, a GRU, the last step, a head of two layers in a Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(6, 12, batch_first=True)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 5))

    def forward(self, channels: Tensor) -> Tensor:
        batch, _, steps = channels.shape
        x = channels.permute(0, 2, 1)
        assert x.shape == (batch, steps, 6)
        y, _ = self.gru(x, torch.zeros(1, batch, 12, device=x.device))
        return self.head(y[:, -1])

    @staticmethod
    def example(batch: int = 2, steps: int = 9, seed: int = 0) -> tuple[Any, ...]:
        return (randn(batch, 6, steps, seed=seed),)


class LoadForecaster(nn.Module):
    """The last value and what an LSTM adds to it: a regression."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 14, batch_first=True)
        self.change = nn.Linear(14, 3)

    def forward(self, history: Tensor) -> Tensor:
        y = self.lstm(history)[0]
        return self.change(y[:, y.shape[1] - 1]) + history[:, -1, :]

    @staticmethod
    def example(batch: int = 2, steps: int = 9, seed: int = 0) -> tuple[Any, ...]:
        phase, pace = randn(batch, 1, 3, seed=seed), torch.tensor([0.3, 0.5, 0.7])
        return (torch.sin(torch.arange(steps)[:, None] * pace + 3 * phase),)


NETWORKS: tuple[Any, ...] = (PhonemeTagger, GestureClassifier, LoadForecaster)


def build(network: Any, seed: int = 3) -> nn.Module:
    """The network in eval mode, with random weights that depend on the seed alone."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    model = network().eval()
    torch.set_rng_state(state)
    return model


def tensors(outputs: Any) -> list[Tensor]:
    """Every tensor of what a network gives."""
    return [leaf for leaf in torch.utils._pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]
