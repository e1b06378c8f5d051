"""Every way to say an operation is the same operation, and wherever a value stands it means the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import irnn
from examples.own_networks import randn, tensors


class Around(nn.Module):
    """A function of a sequence ``[batch, time, 6]``, with modules and parameters at hand."""

    def __init__(self, function: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.fc, self.back, self.twice = nn.Linear(6, 8), nn.Linear(8, 6), nn.Linear(6, 6)
        self.gru, self.lstm = nn.GRU(6, 7, batch_first=True), nn.LSTM(6, 8, 2, batch_first=True)
        self.elman, self.rectified = nn.RNN(6, 8, 2, batch_first=True), nn.RNN(6, 8, nonlinearity="relu")
        self.both = nn.LSTM(6, 5, bidirectional=True, batch_first=True)
        self.own = irnn.LSTM(6, 5, batch_first=True)
        self.projected = nn.LSTM(6, 8, proj_size=4, batch_first=True)
        self.norm, self.bare = nn.LayerNorm(8), nn.LayerNorm(8, elementwise_affine=False)
        self.bn, self.conv = nn.BatchNorm1d(6), nn.Conv1d(6, 5, 3, padding=2, dilation=2)
        self.plain = nn.Conv1d(6, 4, 3)
        self.act, self.relu = nn.Tanh(), nn.ReLU()
        self.weight, self.gain = nn.Parameter(torch.randn(4, 6) / 2), nn.Parameter(torch.linspace(-1, 2, 6))
        with torch.no_grad():
            self.bn.running_mean.uniform_(-0.4, 0.4)
            self.bn.running_var.uniform_(0.5, 2.0)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


SAME: dict[str, Callable[[Any, Tensor], Any]] = {
    "relu, three ways": lambda m, x: (F.relu(m.fc(x)), m.fc(x).relu(), m.relu(m.gru(x)[0])),
    "relu of a norm, of a sum": lambda m, x: F.relu(m.norm(m.fc(x))) + torch.relu(m.fc(x) + m.lstm(x)[0]),
    "one activation on two edges": lambda m, x: m.act(m.fc(x)) * m.act(m.lstm(x)[0]),
    "an activation of an activation": lambda m, x: torch.tanh(torch.sigmoid(m.fc(x))),
    "one linear on two inputs of other scales": lambda m, x: m.twice(x) + m.twice(0.05 * x),
    "one LSTM called twice": lambda m, x: m.lstm(x)[0] - m.lstm(m.back(m.lstm(x)[0]))[0],
    "a linear behind a norm": lambda m, x: m.back(m.norm(m.fc(x))),
    "a norm behind an LSTM, without weights": lambda m, x: m.bare(m.lstm(x)[0]),
    "a function's own matrix": lambda m, x: F.linear(x, m.weight),
    "gains, numbers, signs": lambda m, x: (1 - x) * m.gain + x / 8 - (-x + 0.25),
    "a norm that no convolution takes in": lambda m, x: m.gru(m.bn(x.transpose(1, 2)).transpose(1, 2))[0],
    "a dilated convolution": lambda m, x: torch.sigmoid(m.conv(x.mT)).mT,
    "values side by side, read apart and together": lambda m, x: (
        lambda y: (F.linear(y[..., 8:], m.weight), m.bare(y[..., :8]), m.back(y[..., :8]))
    )(torch.cat([m.fc(x), x], -1)),
    "differences from step to step": lambda m, x: m.gru(x[:, 1:] - x[:, :-1])[0],
    "a border that is cut off": lambda m, x: F.relu(m.conv(x.mT)[:, :, : -2]).mT[:, 1 : x.size(1) - 1],
    "a causal border": lambda m, x: F.relu(m.plain(F.pad(x.mT, (2, 0)))).mT,
    "activations made of others": lambda m, x: (
        F.silu(m.fc(x)), F.glu(m.fc(x), -1), F.hardswish(m.lstm(x)[0] * 4), F.leaky_relu(m.fc(x), 0.2),
    ),
    "halves": lambda m, x: (lambda a, b: a * torch.sigmoid(b))(*m.fc(x).chunk(2, -1)),
    "unequal parts": lambda m, x: (lambda a, b: torch.cat([b, a], 2))(*torch.split(m.fc(x), [3, 5], dim=2)),
    "a first and a last step": lambda m, x: torch.cat([m.gru(x)[0][:, 0], m.gru(x)[0][:, -1]], 1),
    "the largest and the mean over time": lambda m, x: (
        m.lstm(x)[0].max(dim=1)[0], torch.max(m.lstm(x)[0], dim=1).values, torch.amax(m.lstm(x)[0], 1),
        m.lstm(x)[0].mean(1),
        F.adaptive_avg_pool1d(m.lstm(x)[0].mT, 1).squeeze(-1),
    ),
    "last states of layers": lambda m, x: (lambda h, c: (h[-1], torch.tanh(c[0])))(*m.lstm(x)[1]),
    "last states of directions": lambda m, x: m.both(x)[1][0].transpose(0, 1).flatten(1),
    "a state handed on": lambda m, x: m.gru(x, m.gru(x)[1])[0],
    "an Elman network": lambda m, x: m.elman(x)[0],
    "a rectified one, time first": lambda m, x: m.rectified(x.transpose(0, 1))[0],
    "a projection": lambda m, x: m.projected(x)[0],
    "a module of irnn's": lambda m, x: m.own(x)[0],
    "what is known of a whole sequence at every step": lambda m, x: m.fc(x) + m.fc(x[:, -1]).unsqueeze(1),
    "heads": lambda m, x: m.back(m.fc(x).view(x.shape[0], x.shape[1], 2, 4).flatten(2)),
}  # fmt: skip


@pytest.mark.parametrize("function", SAME.values(), ids=SAME)
def test_the_same_numbers_in_float_and_integers(function) -> None:
    torch.manual_seed(1)
    model = Around(function).eval()
    other = randn(4, 11, 6, seed=5)
    with torch.no_grad():
        expected = tensors(model(other))
    irnn.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(pieces=32), example_inputs=randn(2, 7, 6, seed=0))
    with torch.no_grad():
        wired, _ = irnn.wiring_of(model).simulate(other, observing=False)
    for got, want in zip(tensors(wired), expected, strict=True):
        assert got.shape == want.shape
        assert (got - want).abs().max() < 1e-5
    irnn.calibrate(model, [randn(8, 9, 6, seed=k) for k in range(3)])
    irnn.set_stage(model, "all").eval()
    with torch.no_grad():
        found = tensors(model(other))
    mad = any(name in str(function.__code__.co_names) for name in ("norm", "bare"))
    for got, want in zip(found, expected, strict=True):
        error = float((got - want).square().mean().sqrt() / (want.max() - want.min()))
        assert error < (0.06 if mad else 0.02)  # a MadNorm is another function than a LayerNorm
