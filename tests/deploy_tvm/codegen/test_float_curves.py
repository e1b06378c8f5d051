"""Functions of one number in the float baseline: PyTorch's, within float32's rounding, far out as well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

import deploy_tvm
import irnn
from deploy_tvm.codegen.ops.curves import CURVES

FUNCTIONS = {
    "gelu": nn.GELU(), "gelu_tanh": nn.GELU(approximate="tanh"), "silu": nn.SiLU(), "softplus": nn.Softplus(),
    "elu": nn.ELU(), "mish": nn.Mish(), "softsign": nn.Softsign(), "hardswish": nn.Hardswish(),
    "log_sigmoid": nn.LogSigmoid(), "growth": torch.exp, "abs": torch.abs,
}  # fmt: skip


class Net(nn.Module):
    """One linear map that hands on what enters, so that each function sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(1, 1, batch_first=True)  # a network that is converted is recurrent
        self.same = nn.Linear(1, 1)
        self.modules_of = nn.ModuleDict({name: f for name, f in FUNCTIONS.items() if isinstance(f, nn.Module)})

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.same(x)
        functions = FUNCTIONS | dict(self.modules_of.items())
        return self.rnn(x)[0], *[function(y) for function in functions.values()]


def test_each_is_pytorchs(tmp_path: Path) -> None:
    assert set(FUNCTIONS) == set(CURVES)
    torch.manual_seed(0)
    net = Net().eval()
    with torch.no_grad():
        net.same.weight.fill_(1.0)
        net.same.bias.zero_()
    x = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([-80.0, -1e-6, 0.0, 1e-6, 80.0])]).reshape(1, -1, 1)
    with torch.no_grad():
        wanted = net(x)
    irnn.prepare(net, irnn.QuantConfig(), irnn.PwlConfig(pieces=4), example_inputs=x[:, :5])
    irnn.calibrate(net, [x])
    found, _ = deploy_tvm.load(deploy_tvm.build(irnn.float_program(net), tmp_path / "float")).run_all({"x": x.numpy()})
    for name, got, want in list(zip(("rnn", *FUNCTIONS), found, wanted, strict=True))[1:]:
        np.testing.assert_allclose(got, want.numpy(), rtol=2e-6, atol=2e-6, err_msg=name)
