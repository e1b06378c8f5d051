"""Attention heads by a matrix product: as many weights of each step as there are heads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import irnn
from examples.own_networks import randn
from irnn.errors import IrnnError
from tests.support.program_oracle import ProgramOracle

HEADS, SIZE = 3, 6


class Heads(nn.Module):
    """``weights @ steps`` [batch, heads, size] and ``steps @ weights`` [batch, size, heads]; a layer of each."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.score = nn.GRU(4, SIZE, batch_first=True), nn.Linear(SIZE, HEADS)
        self.rows, self.columns = nn.Linear(HEADS * SIZE, 2), nn.Linear(HEADS * SIZE, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, _ = self.gru(x)
        weights = torch.softmax(self.score(y), dim=1)
        rows = torch.matmul(weights.transpose(1, 2), y)
        columns = y.transpose(1, 2) @ weights
        return self.rows(rows.flatten(1)), self.columns(columns.transpose(1, 2).flatten(1))


def test_heads_are_taken_one_by_one() -> None:
    torch.manual_seed(1)
    net, other = Heads().eval(), randn(3, 11, 4, seed=5)
    with torch.no_grad():
        wanted = net(other)
        irnn.prepare(net, irnn.QuantConfig(), irnn.PwlConfig(pieces=16), example_inputs=randn(2, 7, 4, seed=0))
        wired, _ = irnn.wiring_of(net).simulate(other, observing=False)
    assert [tuple(y.shape) for y in wired] == [(3, 2), (3, 3)]
    assert all((a - b).abs().max() < 1e-5 for a, b in zip(wired, wanted, strict=True))

    irnn.calibrate(net, [randn(8, 9, 4, seed=seed) for seed in (20, 21)])
    found = irnn.set_stage(net, "all").eval()(other)
    for got, want in zip(found, wanted, strict=True):
        assert float((got - want).square().mean().sqrt() / (want.max() - want.min())) < 0.02
    program = irnn.convert(net)
    assert sum(node.op == "softmax_mean" for node in program.walk()) == 2 * HEADS

    x = program.quantize(other.numpy())
    integers, _ = program.run_all(x)
    for name, got in zip(program.dequantize(integers).values(), found, strict=True):
        assert np.array_equal(name, got.detach().numpy())
    oracle, _ = ProgramOracle(program).run_batch({next(iter(program.inputs)): x[:1]})
    assert all(np.array_equal(a, b[:1]) for a, b in zip(oracle, integers, strict=True))


class Crossed(nn.Module):
    """Weights of steps times other steps than their own axis holds: no pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.score = nn.GRU(4, SIZE, batch_first=True), nn.Linear(SIZE, HEADS)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.gru(x)
        return torch.matmul(torch.softmax(self.score(y), dim=1), torch.ones(HEADS, 2))


def test_a_product_over_heads_is_refused() -> None:
    with pytest.raises(IrnnError, match="matmul"):
        irnn.prepare(Crossed().eval(), irnn.QuantConfig(), irnn.PwlConfig(), example_inputs=randn(2, 7, 4, seed=0))
