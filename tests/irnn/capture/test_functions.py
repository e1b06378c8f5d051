"""Functions of one number that a stranger's network has: tables onto a site of their own."""

from __future__ import annotations

import copy
import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

import irnn
from irnn.errors import IrnnError
from irnn.nn.activation import Activation
from irnn.quant.functions import EXACT, FUNCTIONS
from irnn.quant.site import QuantSite
from tests.support.program_oracle import ProgramOracle

ACTIVATIONS = [
    nn.GELU(), nn.GELU(approximate="tanh"), nn.SiLU(), nn.Softplus(), nn.Softplus(2.0), nn.ELU(), nn.ELU(0.3),
    nn.CELU(0.5), nn.SELU(), nn.Mish(), nn.Softsign(), nn.Hardswish(), nn.Hardsigmoid(), nn.LeakyReLU(0.2),
    nn.LogSigmoid(), nn.PReLU(1, 0.3),
]  # fmt: skip


class Net(nn.Module):
    """Every function within the network, at 8 bits, and some as outputs, at 16."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.wide, self.functions = (
            nn.GRU(4, 8, batch_first=True),
            nn.Linear(8, 6),
            nn.ModuleList(ACTIVATIONS),
        )
        self.out = nn.Linear(6 * len(ACTIVATIONS), 3)

    def forward(self, x):
        z = self.wide(self.gru(x)[0]) * 4
        return self.out(torch.cat([f(z) for f in self.functions], -1)), *[f(z * 2) for f in self.functions[:3]]


def given(batch: int, steps: int, seed: int) -> torch.Tensor:
    return torch.randn(batch, steps, 4, generator=torch.Generator().manual_seed(seed))


OTHER = given(5, 11, 7)


@cache
def _prepared() -> tuple[nn.Module, list[torch.Tensor]]:
    torch.manual_seed(3)
    net = Net().eval()
    with torch.no_grad():
        wanted = net(OTHER)
        irnn.prepare(net, irnn.QuantConfig(), irnn.PwlConfig(pieces=16), example_inputs=given(2, 6, 0))
        wired, _ = irnn.wiring_of(net).simulate(OTHER, observing=False)
    assert all((a - b).abs().max() < 1e-5 for a, b in zip(wired, wanted, strict=True))
    irnn.calibrate(net, [given(16, 9, seed) for seed in range(20, 24)])
    return irnn.set_stage(net, "all").eval(), wanted


def test_integers_are_near_and_the_oracles() -> None:
    net, wanted = copy.deepcopy(_prepared())
    with torch.no_grad():
        found = net(OTHER)
    for got, want in zip(found, wanted, strict=True):
        assert float((got - want).square().mean().sqrt() / (want.max() - want.min())) < 0.015
    program = irnn.convert(net)
    x = program.quantize(OTHER.numpy())
    expected, _ = program.run_all({"x": x}, program.initial_state(5))
    real = program.dequantize(expected).values()
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(real, found, strict=True))
    oracle, _ = ProgramOracle(program).run_batch({"x": x[:1, :3]})
    assert all(np.array_equal(a, b[:1, :3]) for a, b in zip(oracle, expected, strict=True))
    formats = {
        program.values[node.output].dtype for node in program.walk() if node.attributes.get("function") == "gelu"
    }
    assert formats == {"int8", "int16"}


def test_functions_of_numpy_and_torch_are_the_same() -> None:
    x = np.linspace(-9, 9, 181)
    for name, exact in EXACT.items():
        np.testing.assert_allclose(FUNCTIONS[name](x), exact(torch.from_numpy(x)).numpy(), rtol=1e-12, atol=1e-8)
    assert math.isclose(float(FUNCTIONS["gelu"](np.array(1.0))), 0.8413447460685429, rel_tol=1e-12)


def test_observers_see_the_function_not_its_table() -> None:
    """A table ends where the range does: a range that saw its own ends could never grow again."""
    net, _ = copy.deepcopy(_prepared())
    irnn.set_stage(net, "pwl").train()
    site = next(m for name, m in irnn.wiring_of(net).named_modules() if name.endswith("gelu_int8"))
    before = float(site.observed_max)
    net(4 * given(8, 9, 1))
    assert float(site.observed_max) > before


def test_other_functions_are_refused_by_name() -> None:
    with pytest.raises(IrnnError, match=r"unknown activation 'sine'; allowed are sigmoid, tanh, gelu"):
        Activation("sine", QuantSite("preactivation", 3), output=QuantSite("activation", 3))
    with pytest.raises(IrnnError, match=r"unknown activation 'gelu'; allowed are sigmoid, tanh$"):
        Activation("gelu", QuantSite("preactivation", 3))
