"""Networks of strangers, as they are: float through the wiring, integers in training, interpreter and TVM."""

from __future__ import annotations

import copy
import io
import pickle
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

import irnn
from examples.own_networks import NETWORKS, build, tensors

every = pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.__name__)


def calibration(network) -> list:
    return [network.example(8, 12, seed) for seed in range(10, 14)]


@cache
def _prepared(network) -> nn.Module:
    model = irnn.prepare(
        build(network), irnn.QuantConfig(), irnn.PwlConfig(pieces=32), example_inputs=network.example()
    )
    irnn.calibrate(model, calibration(network))
    return irnn.set_stage(model, "all").eval()


def prepared(network) -> nn.Module:
    """Calibrated, in the last stage."""
    return copy.deepcopy(_prepared(network))


def run(model: nn.Module, arguments: tuple) -> list[torch.Tensor]:
    with torch.no_grad():
        return tensors(model(*arguments))


@every
def test_wired_as_it_computes(network) -> None:
    """At another batch and length than the example's, in float and before anything is quantized."""
    model, other = build(network), network.example(5, 14, seed=7)
    expected = run(model, other)
    irnn.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), example_inputs=network.example())
    with torch.no_grad():
        outputs, _ = irnn.wiring_of(model).simulate(other, observing=False)
    for got, want in zip(tensors(outputs), expected, strict=True):
        assert got.shape == want.shape
        assert (got - want).abs().max() < 1e-5
    assert all(torch.equal(a, b) for a, b in zip(run(model, other), expected, strict=True))


@every
def test_calibration_alone_is_near(network) -> None:
    """The error on inputs that calibration has not seen, root mean square, in shares of the output's range."""
    other = network.example(16, 14, seed=7)
    for got, want in zip(run(prepared(network), other), run(build(network), other), strict=True):
        assert float((got - want).square().mean().sqrt() / (want.max() - want.min())) < 0.015


@every
def test_eval_and_the_interpreter_give_the_same_integers(network) -> None:
    model, other = prepared(network), network.example(5, 14, seed=7)
    program = irnn.convert(model)
    integers, state = program.run_all(*irnn.wiring_of(model).program_arguments(program, *other))
    real = list(program.dequantize(integers).values())
    for k, note in enumerate(program.metadata["outputs"].values()):
        if note.get("then") == "log_softmax":
            real[k] = torch.log_softmax(torch.from_numpy(real[k]), -1).numpy()
    states = program.dequantize(state)
    if network.__name__ == "StreamModel":
        real.append(np.stack([states["gru.0.h"], states["gru.1.h"]]))
    for got, want in zip(real, run(model, other), strict=True):
        assert np.array_equal(got, want.numpy())


@every
def test_it_stays_the_network_that_it_was(network) -> None:
    model = build(network)
    parameters, keys, modules = list(model.parameters()), list(model.state_dict()), dict(model.named_modules())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert irnn.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), example_inputs=network.example()) is model
    assert type(model).__name__ == network.__name__
    assert isinstance(model, network)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert list(model.state_dict())[: len(keys)] == keys
    assert all(model.get_submodule(name) is module for name, module in modules.items())
    irnn.calibrate(model, calibration(network))
    irnn.set_stage(model, "activations").train()
    before = [p.detach().clone() for p in parameters]
    sum(y.square().mean() for y in tensors(model(*network.example()))).backward()
    optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(parameters, before, strict=True))


@every
def test_copies_and_saved_ones_give_the_same_integers(network) -> None:
    model, other = prepared(network), network.example(5, 14, seed=7)
    expected = run(model, other)
    stream = io.BytesIO()
    torch.save(model.state_dict(), stream)
    stream.seek(0)
    loaded = irnn.prepare(
        build(network, seed=9), irnn.QuantConfig(), irnn.PwlConfig(pieces=32), example_inputs=network.example()
    )
    loaded.load_state_dict(torch.load(stream, weights_only=True))
    irnn.set_stage(loaded, "all").eval()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded):
        assert all(torch.equal(a, b) for a, b in zip(run(twin, other), expected, strict=True))
        assert twin is not model
        next(twin.parameters()).data.mul_(3)  # its own weights are what it computes with
        assert any(not torch.equal(a, b) for a, b in zip(run(twin, other), expected, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(run(model, other), expected, strict=True))


@every
def test_weights_from_before_load_into_a_prepared_network(network) -> None:
    floating, other = build(network, seed=9), network.example(5, 14, seed=7)
    model = irnn.prepare(build(network), irnn.QuantConfig(), irnn.PwlConfig(), example_inputs=network.example())
    assert not any(model.load_state_dict(floating.state_dict()))
    assert all(torch.equal(a, b) for a, b in zip(run(model, other), run(floating, other), strict=True))
    quantized = prepared(network)
    before = run(quantized, other)
    quantized.load_state_dict(floating.state_dict())
    assert any(not torch.equal(a, b) for a, b in zip(run(quantized, other), before, strict=True))
