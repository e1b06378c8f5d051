"""Converted models against the oracle: the real wiring, scales, tables and norms, down to the narrowest bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import irnn
from irnn.arithmetic.numpy_ops import NUMPY
from irnn.arithmetic.torch_ops import TORCH
from tests.irnn.program.test_interpreter import assert_same, oracle, run
from tests.support.models import ids, language_model, quantized, quantized_layer
from tests.support.program_oracle import ProgramOracle
from tests.support.random_programs import random_inputs, random_state

# The oracle's stacks have one scale for embedding and output layer, as bits above 4 have.
NARROW = irnn.QuantConfig(weight=4, embedding=6, logits_weight=6, activation=6, hidden=6, preactivation=10, cell=12)
NARROWEST = irnn.QuantConfig(weight=2, embedding=5, logits_weight=5, preactivation=8, norm=8, cell=8)
configs = pytest.mark.parametrize(
    "quant", [irnn.QuantConfig(), NARROW, NARROWEST], ids=["8 bits", "4 and 6 bits", "2 bits"]
)


def assert_all_equal(program: irnn.Program) -> None:
    """NumPy, PyTorch and the oracle, from the initial state and from one that no run reaches."""
    inputs = random_inputs(program, 2, 4)
    for state in (None, random_state(program, 2)):
        expected = oracle(program, inputs, state)
        for ops in (NUMPY, TORCH):
            assert_same(run(ops, program, inputs, state), expected)


def assert_equal_to_evaluator(program: irnn.Program) -> None:
    """As :func:`assert_all_equal`, against the evaluator of any program: the oracle's network is an LSTM or a GRU."""
    inputs = random_inputs(program, 2, 4)
    (name,) = program.inputs
    for state in (None, random_state(program, 2)):
        (output,), last = ProgramOracle(program).run_batch({name: inputs}, state)
        for ops in (NUMPY, TORCH):
            assert_same(run(ops, program, inputs, state), (output, last))


@configs
@pytest.mark.parametrize("norm", [None, "layer", "mad"])
def test_language_models(norm: str | None, quant: irnn.QuantConfig) -> None:
    assert_all_equal(irnn.convert(quantized(language_model(norm=norm, layers=2), quant)))


@configs
@pytest.mark.parametrize("norm", [None, "mad"])
def test_bidirectional_stacks(norm: str | None, quant: irnn.QuantConfig) -> None:
    assert_all_equal(irnn.convert(quantized_layer(quant, bidirectional=True, num_layers=2, norm=norm)))


@configs
@pytest.mark.parametrize("norm", [None, "mad"])
def test_projected_stacks(norm: str | None, quant: irnn.QuantConfig) -> None:
    assert_all_equal(irnn.convert(quantized_layer(quant, bidirectional=True, num_layers=2, proj_size=5, norm=norm)))


@configs
@pytest.mark.parametrize("norm", [None, "mad", "layer"])
def test_gru_stacks(norm: str | None, quant: irnn.QuantConfig) -> None:
    assert_equal_to_evaluator(irnn.convert(quantized(language_model(cell="gru", norm=norm, layers=2), quant)))


@pytest.mark.parametrize("norm", [None, "layer"])
def test_evaluation_in_training_equals_the_oracle(norm: str | None) -> None:
    model = quantized(language_model(norm=norm, layers=2))
    program = irnn.convert(model)
    tokens = ids(batch=2, time=6, seed=3)
    with torch.no_grad():
        logits, state = model(tokens)
    expected, last = oracle(program, tokens.numpy())
    np.testing.assert_array_equal(logits.numpy(), (torch.from_numpy(expected) * program.logits_scale).numpy())
    for name, rows in last.items():
        np.testing.assert_array_equal(state[name].numpy(), rows)
