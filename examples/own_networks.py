"""Networks as users write them, in plain ``torch.nn``: what ``irnn.prepare`` takes in, each of another structure.

``build`` gives one in eval mode with random weights; ``network.example(batch, steps, seed)`` is what ``forward`` takes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
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


class StreamModel(nn.Module):
    """Next-word model: tied weights, two GRU layers, the state an argument and a result, log-probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(30, 12)
        self.gru = nn.GRU(12, 12, 2, dropout=0.1)
        self.drop = nn.Dropout(0.1)
        self.words = nn.Linear(12, 30)
        self.words.weight = self.table.weight

    def forward(self, ids: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        y, h = self.gru(self.table(ids), h)
        return F.log_softmax(self.words(self.drop(y)), dim=-1), h

    @staticmethod
    def example(batch: int = 2, steps: int = 9, seed: int = 0) -> tuple[Any, ...]:
        return randint(30, steps, batch, seed=seed), randn(2, batch, 12, seed=seed + 50).tanh()


class CommandSpotter(nn.Module):
    """Strided convolutions with batch norm and pooling, a GRU, the mean over time, scores."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Sequential(
            nn.Conv1d(8, 10, 3, stride=2, padding=1, bias=False), nn.BatchNorm1d(10), nn.ReLU(), nn.MaxPool1d(2),
            nn.Conv1d(10, 12, 3, padding="same", groups=2), nn.ReLU6(),
        )  # fmt: skip
        self.rnn = nn.GRU(12, 10, batch_first=True)
        self.out = nn.Linear(10, 4)
        with torch.no_grad():
            self.front[1].running_mean.uniform_(-0.3, 0.3)
            self.front[1].running_var.uniform_(0.5, 2.0)

    def forward(self, bands: Tensor) -> Tensor:
        y, _ = self.rnn(self.front(bands).transpose(1, 2))
        return self.out(y.mean(dim=1))

    @staticmethod
    def example(batch: int = 2, steps: int = 9, seed: int = 0) -> tuple[Any, ...]:
        return (randn(batch, 8, 4 * steps, seed=seed),)


class LineReader(nn.Module):
    """An image, two convolutions, columns flattened channel by channel, a bidirectional LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(1, 4, 3, padding=1)
        self.two = nn.Conv2d(4, 6, (3, 3), stride=(2, 1), padding=(1, 1))
        self.norm = nn.BatchNorm2d(6)
        self.rnn = nn.LSTM(6 * 2, 7, bidirectional=True, batch_first=True)
        self.letters = nn.Linear(14, 9)

    def forward(self, image: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.one(image)), (2, 1))
        x = F.relu(self.norm(self.two(x)))
        batch, channels, height, width = x.shape
        x = x.permute(0, 3, 1, 2).reshape(batch, width, channels * height)
        return self.letters(self.rnn(x)[0])

    @staticmethod
    def example(batch: int = 2, steps: int = 9, seed: int = 0) -> tuple[Any, ...]:
        return (randn(batch, 1, 8, steps, seed=seed),)


class ReviewRater(nn.Module):
    """Unequal lengths, packed; a score from the last states of both directions and the largest of all steps."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 9)
        self.gru = nn.GRU(9, 8, bidirectional=True, batch_first=True)
        self.rate = nn.Sequential(nn.Linear(16, 10), nn.Tanh(), nn.Linear(10, 3))

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(
            self.words(ids), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        _, h = self.gru(packed)
        return self.rate(torch.cat([h[0], h[1]], 1))

    @staticmethod
    def example(batch: int = 2, steps: int = 9, seed: int = 0) -> tuple[Any, ...]:
        lengths = randint(steps + 1, batch, seed=seed + 1, low=2)
        lengths[0] = steps
        return randint(50, batch, steps, seed=seed), lengths


class Enhancer(nn.Module):
    """Residual layers, each a norm, a GRU and its input again; a mask on the spectrum; values side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(10, 12)
        self.norms = nn.ModuleList([nn.LayerNorm(12), nn.LayerNorm(12)])
        self.layers = nn.ModuleList([nn.GRU(12, 12, batch_first=True), nn.GRU(12, 12, batch_first=True)])
        self.gain = nn.Parameter(torch.linspace(0.5, 1.5, 12))
        self.mask = nn.Linear(12 + 10, 10)

    def forward(self, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.tanh(self.into(spectrum / 2))
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = x + layer(norm(x))[0] * 0.5
        x = x * self.gain
        mask = self.mask(torch.cat([x, spectrum], dim=-1)).sigmoid()
        return mask * spectrum, (1 - mask).mean(1)

    @staticmethod
    def example(batch: int = 2, steps: int = 9, seed: int = 0) -> tuple[Any, ...]:
        return (randn(batch, steps, 10, seed=seed).abs(),)


class Dispatcher(nn.Module):
    """Several inputs: a sequence, what is known of it as a whole (at every step), a gate from half of a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.known = nn.Linear(4, 5)
        self.lstm = nn.LSTM(6 + 5, 11, batch_first=True)
        self.gated = nn.Linear(11, 16)
        self.out = nn.Linear(8, 2)

    def forward(self, readings: Tensor, site: Tensor) -> dict[str, Tensor]:
        known = F.relu(self.known(site)).unsqueeze(1).expand(-1, readings.size(1), -1)
        y, (h, c) = self.lstm(torch.cat((readings, known), 2))
        a, b = self.gated(h[-1]).chunk(2, dim=-1)
        return {"load": self.out(a * torch.sigmoid(b)), "trace": F.hardtanh(y, -0.5, 0.5), "memory": c.squeeze(0)}

    @staticmethod
    def example(batch: int = 2, steps: int = 9, seed: int = 0) -> tuple[Any, ...]:
        return randn(batch, steps, 6, seed=seed), randn(batch, 4, seed=seed + 9)


class Translator(nn.Module):
    """The last states of one LSTM are the first of another: attention-free sequence to sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(25, 8), nn.Embedding(20, 8)
        self.encoder = nn.LSTM(8, 10, batch_first=True)
        self.decoder = nn.LSTM(8, 10, batch_first=True)
        self.words = nn.Linear(10, 20)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        _, state = self.encoder(self.source(source))
        y, _ = self.decoder(self.target(target), state)
        return self.words(y)

    @staticmethod
    def example(batch: int = 2, steps: int = 9, seed: int = 0) -> tuple[Any, ...]:
        return randint(25, batch, steps, seed=seed), randint(20, batch, steps - 3, seed=seed + 1)


class Decoder(nn.Module):
    """Two cells in a loop of one's own, the upper one on the lower one's state beside the input; steps are stacked."""

    def __init__(self) -> None:
        super().__init__()
        self.lower, self.upper = nn.LSTMCell(7, 9), nn.GRUCell(9 + 7, 8)
        self.out = nn.Linear(8, 5)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        h, c = frames.new_zeros(frames.size(0), 9), frames.new_zeros(frames.size(0), 9)
        top = torch.zeros(frames.size(0), 8)
        outputs = []
        for t in range(frames.size(1)):
            h, c = self.lower(frames[:, t], (h, c))
            top = self.upper(torch.cat([h, frames[:, t]], dim=1), top)
            outputs.append(self.out(torch.relu(top)))
        return torch.stack(outputs, dim=1), top

    @staticmethod
    def example(batch: int = 2, steps: int = 9, seed: int = 0) -> tuple[Any, ...]:
        return (randn(batch, steps, 7, seed=seed),)


NETWORKS: tuple[Any, ...] = (
    PhonemeTagger, GestureClassifier, LoadForecaster, StreamModel, CommandSpotter, LineReader, ReviewRater, Enhancer,
    Dispatcher, Translator, Decoder,
)  # fmt: skip


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
