"""Rounding with errors that later columns make up for: never worse by its measure, and always a code's own values."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import irnn
from irnn import QuantConfig, compensation, qat
from irnn.data.labelled.batches import LabelledBatch
from irnn.errors import IrnnError
from irnn.models.classifier import Classifier, ClassifierConfig
from irnn.nn.linear import Linear
from irnn.nn.moments import Moments
from irnn.quant.codes import weight_code
from pipelines.core.checkpoints import load_weights
from pipelines.core.plan import plan
from pipelines.run import problem_of, run
from tests.support import models
from tests.support.tiny_run import tiny_config

CODES = (4, 2, "ternary", "midrise:3", "denseshift:3", "alternating:2", "binary")


def correlated(size: int) -> Tensor:
    """H of vectors that lie near a few directions, float64."""
    x = torch.randn(4 * size, size // 4, dtype=torch.float64) @ torch.randn(size // 4, size, dtype=torch.float64)
    x += 0.1 * torch.randn_like(x)
    return x.T @ x / len(x)


def cost(error: Tensor, h: Tensor) -> Tensor:
    return torch.einsum("ri,ij,rj->r", error, h, error)


@pytest.mark.parametrize("choice", CODES)
def test_rows_cost_less_and_hold_values_of_their_code(choice: int | str) -> None:
    torch.manual_seed(0)
    weight, h, code = torch.randn(40, 32, dtype=torch.float64), correlated(32), weight_code(choice, per_row=True)
    found = compensation.compensated(weight, code, h)
    nearest, _ = code.seen(weight)
    own, _ = code.seen(found)
    before, after = cost(nearest - weight, h), cost(own - weight, h)
    assert bool((after <= before * (1 + 1e-9)).all())
    assert float(after.sum()) < 0.6 * float(before.sum())
    moved = (found != weight).any(1)
    assert int(moved.sum()) > 30
    torch.testing.assert_close(own[moved], found[moved], rtol=1e-5, atol=1e-8)
    for first, second in zip(code.encode(found.numpy()), code.encode(own.numpy()), strict=True):
        assert np.array_equal(first.integers[moved], second.integers[moved])


def test_between_the_nearest_and_the_best_of_all_values() -> None:
    """All that three weights of two bits may be, tried one by one."""
    torch.manual_seed(1)
    weight, h, code = (
        torch.randn(20, 3, dtype=torch.float64),
        correlated(12)[:3, :3],
        weight_code("midrise:2", per_row=True),
    )
    (term,) = code.terms(weight)
    nearest, _ = code.seen(weight)
    own, _ = code.seen(compensation.compensated(weight, code, h))
    choices = torch.tensor(list(itertools.product((-3.0, -1.0, 1.0, 3.0), repeat=3)), dtype=torch.float64)
    best = torch.stack([cost(term.scale * choice - weight, h) for choice in choices]).amin(0)
    found = cost(own - weight, h)
    assert bool((best <= found + 1e-12).all() and (found <= cost(nearest - weight, h) + 1e-12).all())
    assert int((found - best < 1e-9).sum()) > int((cost(nearest - weight, h) - best < 1e-9).sum())


def test_independent_elements_are_rounded_to_nearest() -> None:
    weight = torch.randn(5, 16, dtype=torch.float64)
    code = weight_code("midrise:3", per_row=True)
    assert torch.equal(compensation.compensated(weight, code, torch.eye(16, dtype=torch.float64)), weight)


@pytest.mark.parametrize("choice", [5, 8, "full_range:8"])
def test_codes_of_many_values_stay(choice: int | str) -> None:
    weight = torch.randn(8, 64, dtype=torch.float64)
    assert torch.equal(compensation.compensated(weight, weight_code(choice, per_row=True), correlated(64)), weight)


def test_a_tied_language_model_is_nearer_to_float() -> None:
    """Its output layer and embedding are one tensor, which changes for both; the program is the model's."""
    ids = [torch.randint(0, models.VOCABULARY, (4, 25)) for _ in range(4)]
    noise = {}
    for way in ("nearest", "compensated"):
        model = models.language_model()
        exact = model(ids[0])[0].detach()
        qat.prepare(
            model, QuantConfig(weight="midrise:3", embedding="midrise:3", logits_weight="midrise:3"), stage="all"
        )
        qat.calibrate(model, ids)
        if way == "compensated":
            before = {name: tensor.clone() for name, tensor in model.named_parameters()}
            qat.compensate(model, ids)
            changed = {name for name, tensor in model.named_parameters() if not torch.equal(tensor, before[name])}
            assert changed
            assert all("bias" not in name for name in changed)
        found = model.eval()(ids[0])[0].detach()
        noise[way] = float((found - exact).square().mean())
    assert noise["compensated"] < noise["nearest"]
    assert all(module.moments is None for module in model.modules() if isinstance(module, Linear))


class Own(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = torch.nn.LSTM(6, 24, batch_first=True), torch.nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(x)
        return self.head(y)


def test_a_network_of_ones_own() -> None:
    torch.manual_seed(2)
    net, x = Own(), torch.randn(3, 20, 6).cumsum(1) / 3
    exact = net(x).detach()
    noise = []
    for compensate in (False, True):
        net = Own()
        torch.manual_seed(2)
        net.load_state_dict(Own().state_dict())
        irnn.prepare(net, QuantConfig(weight="midrise:2"), stage="all", example_inputs=x)
        irnn.calibrate(net, [x])
        if compensate:
            irnn.compensate(net, [x])
        found = net.eval()(x).detach()
        noise.append(float((found - exact).square().mean()))
        program = irnn.convert(net)
        (output, *_), _ = program.run_all(program.quantize(x.numpy()))
        assert np.array_equal(program.dequantize(output), found.numpy())
    assert noise[1] < 0.9 * noise[0]


def test_padding_is_not_counted() -> None:
    model = Classifier(ClassifierConfig(feature_size=5, classes=3, hidden_size=7)).eval()
    modules = [module for module in model.modules() if isinstance(module, Linear)]
    for module in modules:
        module.moments = Moments(module.weight.shape[1])
    lengths = torch.tensor([9, 3, 5, 9])
    x = torch.randn(4, 9, 5)
    model.response(LabelledBatch(x, lengths, torch.zeros(4).long()), None)
    counts = {module.moments.count for module in modules if module.moments is not None}
    assert counts <= {int(lengths.sum()), 4}  # one vector a step, or one a sequence
    (first,) = (module.moments for module in modules if module.moments is not None and len(module.moments.total) == 5)
    rows = torch.cat([row[:length] for row, length in zip(x, lengths, strict=True)]).double()
    torch.testing.assert_close(first.total, rows.T @ rows)


def test_what_cannot_be_compensated_says_why() -> None:
    model = models.language_model()
    with pytest.raises(IrnnError, match="stage 'float' has no quantized weights"):
        qat.compensate(model, [torch.zeros(1, 2).long()])
    qat.prepare(model, QuantConfig(weight=4), stage="all")
    with pytest.raises(IrnnError, match="compensation got no batch"):
        qat.compensate(model, [])
    net, x = Own(), torch.randn(2, 5, 6)
    irnn.prepare(net, QuantConfig(weight=4), stage="all", example_inputs=x)
    irnn.calibrate(net, [x])
    before = {name: tensor.clone() for name, tensor in net.named_parameters()}
    with pytest.raises(IrnnError, match=r"lstm\.0\.w_x .* NaN or infinite"):
        irnn.compensate(net, [x, x * torch.nan])
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.named_parameters())


def test_a_run_that_compensates_has_stages_of_its_own(tmp_path: Path) -> None:
    found = {}
    for way in ("true", "compensated"):
        config = tiny_config(tmp_path, f"post_training={way}", "recipe.float.epochs=1", "until=all", "quant=midrise3")
        results = run(config)
        assert results["epochs"]["all"] == 0
        stages = {stage.name: stage for stage in plan(config, problem_of(config))}
        found[way] = stages["all"].digest, load_weights(stages["all"].folder)
    (true, nearest), (other, compensated) = found.values()
    assert true != other
    assert nearest.keys() == compensated.keys()
    assert any(not torch.equal(nearest[name], compensated[name]) for name in nearest if name.endswith("weight"))
