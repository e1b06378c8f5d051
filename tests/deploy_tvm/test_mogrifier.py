"""The Mogrifier cell compiled: here the interpreter's integers, from any state, and as its float self."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("tvm", reason="need tvm: tvm not installed")

import deploy_tvm
import irnn
from deploy_tvm.cli.prompt import candidates
from irnn import qat
from irnn.metrics import scores
from tests.support.float_reference import run_float
from tests.support.models import ids, quantized, quantized_layer
from tests.support.random_programs import random_inputs, random_state


def test_the_compiled_step_is_the_interpreters(tmp_path: Path) -> None:
    model = quantized_layer(cell="mogrifier", rounds=3, rank=5)
    program = irnn.convert(model)
    runner = deploy_tvm.load(deploy_tvm.build(program, tmp_path / "integer"))
    for state in (None, random_state(program, 3)):
        inputs = random_inputs(program, 3, 7)
        (wanted, after), (found, last) = (one.run(inputs, state) for one in (program, runner))
        assert np.array_equal(wanted, found)
        assert all(np.array_equal(after[name], last[name]) for name in after)
    baseline = irnn.float_program(model)
    x = np.random.default_rng(0).standard_normal((2, 5, 9)).astype(np.float32)
    expected, _ = run_float(baseline, x, {name: np.zeros((2, 16), np.float32) for name in baseline.states})
    found, _ = deploy_tvm.load(deploy_tvm.build(baseline, tmp_path / "float")).run(x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_mixture_of_softmaxes_leaves_as_integers(tmp_path: Path) -> None:
    """Every output and state of the compiled program is the interpreter's; in float they mix to the network's."""
    torch.manual_seed(0)
    config = irnn.LanguageModelConfig(
        60, 7, 12, num_layers=2, dropout=0.0, cell="mogrifier", cell_options={"rounds": 2, "rank": 4}, sum_layers=True,
        down_projection=True, softmaxes=2,
    )  # fmt: skip
    model = quantized(irnn.LanguageModel(config))
    program, baseline, tokens = irnn.convert(model), irnn.float_program(model), ids(3, 7)
    runner = deploy_tvm.load(deploy_tvm.build(program, tmp_path / "integer"))
    for state in (None, random_state(program, 3)):
        (wanted, after), (found, last) = (one.run_all(tokens.numpy(), state) for one in (program, runner))
        assert [y.shape for y in found] == [(3, 7, 60), (3, 7, 60), (3, 7, 2)]
        assert all(map(np.array_equal, (*wanted, *after.values()), (*found, *last.values())))
        stream = runner.stream(3, state)
        for t in range(7):
            assert all(map(np.array_equal, stream.step(tokens[:, t].numpy()), (y[:, t] for y in wanted)))
        assert all(np.array_equal(stream.state[name], after[name]) for name in after)
    floating = deploy_tvm.load(deploy_tvm.build(baseline, tmp_path / "float")).run_all(tokens.numpy())[0]
    qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), "float")
    expected, _ = model(tokens)
    torch.testing.assert_close(scores(floating, baseline.output_scales), expected.detach(), rtol=0, atol=1e-4)
    mixed = scores(program.run_all(tokens.numpy())[0], program.output_scales, torch.float64)[0, -1].exp()
    best = candidates(runner, tokens[0].tolist(), 3)
    assert [token for token, _ in best] == mixed.topk(3).indices.tolist()
    assert [p for _, p in best] == pytest.approx(mixed.topk(3).values.tolist())
