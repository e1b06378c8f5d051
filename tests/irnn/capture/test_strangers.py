"""Ways of writing that strangers' networks have: each is captured as it stands, and its integers are the program's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import irnn
from examples.own_networks import randint, randn, tensors
from irnn.errors import IrnnError

LENGTHS = torch.tensor([9, 4, 7, 1])


class Scored(nn.Module):
    """Attention pooling by a product and a sum, and by an einsum over heads' first one; a list of directions summed."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.score = nn.LSTM(5, 6, batch_first=True, bidirectional=True), nn.Linear(6, 1)
        self.matrix, self.out = nn.Parameter(torch.randn(6, 4) * 0.4), nn.Linear(10, 3)

    def forward(self, x):
        y = self.lstm(x)[0]
        y = y.view(y.size(0), y.size(1), 2, -1).sum(2)
        w = torch.softmax(self.score(torch.tanh(y)), dim=1)
        first = (w * y).sum(1)
        second = torch.einsum("bt,bth->bh", w.squeeze(-1), torch.einsum("bth,hk->btk", y, self.matrix))
        return self.out(torch.cat([first, second], -1)), w

    example = staticmethod(lambda batch=2, steps=9, seed=0: (randn(batch, steps, 5, seed=seed),))


class Asked(nn.Module):
    """The last state asks every step: two ``bmm``, padding by ``masked_fill``."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.gru, self.out = nn.Embedding(20, 6), nn.GRU(6, 8, batch_first=True), nn.Linear(16, 3)

    def forward(self, ids, lengths):
        y, h = self.gru(self.table(ids))
        mask = torch.arange(ids.size(1), device=ids.device)[None, :] < lengths[:, None]
        score = torch.bmm(y, h[-1].unsqueeze(2)).squeeze(2).masked_fill(~mask, float("-inf"))
        context = torch.bmm(y.transpose(1, 2), F.softmax(score, dim=-1).unsqueeze(2)).squeeze(2)
        last = y[torch.arange(ids.size(0)), lengths - 1]
        return self.out(torch.cat([context, last], 1))

    @staticmethod
    def example(batch: int = 4, steps: int = 9, seed: int = 0) -> tuple[Tensor, Tensor]:
        return randint(20, batch, steps, seed=seed), LENGTHS.repeat(-(-batch // 4))[:batch]


@dataclass
class Answer:
    """What :class:`Averaged` returns."""

    scores: Tensor
    hidden: Tensor
    loss: Tensor | None = None


class Averaged(nn.Module):
    """The mean of masked steps, a static id, ``F.one_hot``, a dataclass."""

    def __init__(self) -> None:
        super().__init__()
        self.item, self.lstm, self.out = nn.Embedding(5, 3), nn.LSTM(10, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, ids, item, lengths):
        x = F.one_hot(ids, 7).float()
        e = self.item(item).unsqueeze(1).expand(-1, ids.size(1), -1)
        y, _ = self.lstm(torch.cat([x, e], -1))
        mask = torch.arange(ids.size(1))[None] < lengths[:, None]
        y = y * mask.unsqueeze(-1).float()
        mean = y.sum(1) / lengths.unsqueeze(-1).float()
        return Answer(self.out(mean), mean)

    @staticmethod
    def example(batch: int = 4, steps: int = 9, seed: int = 0) -> tuple[Tensor, ...]:
        lengths = LENGTHS.repeat(-(-batch // 4))[:batch]
        return randint(7, batch, steps, seed=seed), randint(5, batch, seed=seed), lengths


class Pair(NamedTuple):
    """What :class:`OneStep` returns."""

    scores: Tensor
    hidden: Tensor


class OneStep(nn.Module):
    """One item a call, no axis of time: the state is an argument and a result."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.gru, self.out = nn.Embedding(30, 6), nn.GRU(6, 8), nn.Linear(8, 30)

    def forward(self, item, hidden):
        y, hidden = self.gru(self.table(item).unsqueeze(0), hidden)
        return Pair(torch.tanh(self.out(y.view(-1, y.size(-1)))), hidden)

    example = staticmethod(
        lambda batch=3, steps=1, seed=0: (randint(30, batch, seed=seed), 0.3 * randn(1, batch, 8, seed=seed))
    )


class Policy(nn.Module):
    """A cell by itself: its state goes on to the heads, and leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.cell, self.head = nn.Linear(4, 6), nn.LSTMCell(6, 8), nn.Linear(8, 3)

    def forward(self, seen, state):
        h, c = self.cell(torch.relu(self.front(seen)), state)
        return {"scores": self.head(h), "state": (h, c)}

    @staticmethod
    def example(batch: int = 3, steps: int = 1, seed: int = 0) -> tuple[Any, ...]:
        state = tuple(0.3 * randn(batch, 8, seed=seed + k) for k in (1, 2))
        return randn(batch, 4, seed=seed), state


class Recent(nn.Module):
    """The last three steps side by side, one as the level, states in a view of layers and directions, broadcast."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(2, 6, 2, batch_first=True, bidirectional=True)
        self.out, self.gate = nn.Linear(18, 8), nn.Linear(12, 1)

    def forward(self, x):
        level = x[:, -1:, :]
        y, h = self.gru(x - level)
        h = h.view(2, 2, -1, 6)
        state = torch.cat((h[-1, 0], h[-1, 1]), -1)
        y = y * torch.sigmoid(self.gate(y))
        recent = torch.cat([x[:, -3:].flatten(1), state], -1)
        return self.out(recent).view(-1, 4, 2) + level, y.abs().mean(1)

    example = staticmethod(lambda batch=2, steps=9, seed=0: (randn(batch, steps, 2, seed=seed),))


NETWORKS = [Scored, Asked, Averaged, OneStep, Policy, Recent]


def real(outputs: Any) -> list[Tensor]:
    """Tensors of whatever a network returns."""
    if isinstance(outputs, Answer):
        return [outputs.scores, outputs.hidden]
    return tensors(outputs)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.__name__)
def test_captured_as_it_stands(network) -> None:
    torch.manual_seed(2)
    net, other = network().eval(), network.example(8, 12, 5)
    with torch.no_grad():
        returned = net(*other)
        wanted = real(returned)
        irnn.prepare(net, irnn.QuantConfig(), irnn.PwlConfig(pieces=16), example_inputs=network.example())
        wired, _ = irnn.wiring_of(net).simulate(other, observing=False)
        for got, want in zip(real(wired), wanted, strict=True):
            assert got.shape == want.shape
            assert (got - want).abs().max() < 1e-5
        irnn.calibrate(net, [network.example(12, 10, seed) for seed in range(20, 24)])
        quantized = irnn.set_stage(net, "all").eval()(*other)
    assert type(quantized) is type(returned)
    found = real(quantized)
    for got, want in zip(found, wanted, strict=True):
        assert float((got - want).square().mean().sqrt() / (want.max() - want.min())) < 0.03
    program = irnn.convert(net)
    integers, _ = program.run_all(*irnn.wiring_of(net).program_arguments(program, *other))
    for k, (name, y) in enumerate(program.dequantize(integers).items()):
        if program.metadata["outputs"][list(program.metadata["outputs"])[k]].get("then") == "softmax_over_time":
            y = torch.softmax(torch.from_numpy(y), 1).numpy()
        assert np.array_equal(y, found[k].numpy()), name


def test_what_it_returns_names_the_outputs() -> None:
    net = irnn.prepare(Averaged().eval(), irnn.QuantConfig(), irnn.PwlConfig(), example_inputs=Averaged.example())
    irnn.calibrate(net, [Averaged.example()])
    program = irnn.convert(irnn.set_stage(net, "all").eval())
    assert list(program.metadata["outputs"]) == ["scores", "hidden"]


class Elsewhere(nn.Module):
    """Weights of steps that are put to other uses, a constant, a mask of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.score = nn.GRU(4, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x):
        y, _ = self.gru(x)
        w = torch.softmax(self.score(y), 1)
        return torch.tanh(w), y @ torch.full((4, 4), math.pi), y.masked_fill(y > 0, 0.0), w.sum()


def test_what_is_refused_is_listed_whole() -> None:
    found = irnn.explain(Elsewhere().eval(), randn(2, 7, 4, seed=0))
    said = " | ".join(f"{row.op}: {row.problem}" for row in found.problems)
    for part in (
        "tanh: reads softmax, which holds weights of steps, for a sum over time",
        "get_attr: reads a constant [4, 4] that is made in forward",
        "matmul: multiplies",
        "gt: compares numbers",
        "masked_fill: fills by a mask that is not made of lengths",
        "sum: sums everything",
    ):
        assert part in said, said
    with pytest.raises(IrnnError, match="has no integer form"):
        irnn.prepare(Elsewhere(), irnn.QuantConfig(), irnn.PwlConfig(), example_inputs=randn(2, 7, 4, seed=0))
