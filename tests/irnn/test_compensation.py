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
from irnn.models.base import RecurrentModel
from irnn.models.classifier import Classifier, ClassifierConfig
from irnn.models.output_metric import Classes, OutputMetric, Squares
from irnn.nn.error_cost import ErrorCost
from irnn.nn.linear import Weight
from irnn.quant.codes import weight_code
from pipelines.core.checkpoints import load_weights
from pipelines.core.plan import plan
from pipelines.run import problem_of, run
from tests.support import models, speech_models
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
    """All that three weights of two bits may be, each with its best scale, tried one by one."""
    torch.manual_seed(1)
    weight, h, code = (
        torch.randn(20, 3, dtype=torch.float64),
        correlated(12)[:3, :3],
        weight_code("midrise:2", per_row=True),
    )
    nearest, _ = code.seen(weight)
    own, _ = code.seen(compensation.compensated(weight, code, h))
    choices = torch.tensor(list(itertools.product((-3.0, -1.0, 1.0, 3.0), repeat=3)), dtype=torch.float64)
    scales = [(weight @ h @ choice) / (choice @ h @ choice) for choice in choices]
    candidates = zip(scales, choices, strict=True)
    best = torch.stack([cost(scale[:, None] * choice - weight, h) for scale, choice in candidates]).amin(0)
    found = cost(own - weight, h)
    assert bool((best <= found + 1e-12).all() and (found <= cost(nearest - weight, h) + 1e-12).all())
    assert int((found - best < 1e-9).sum()) > 5 + int((cost(nearest - weight, h) - best < 1e-9).sum())


@pytest.mark.parametrize("choice", ["midrise:2", "midrise:3", "denseshift:3"])
def test_no_other_scale_costs_less(choice: str) -> None:
    """Of the integers that were found, plane by plane."""
    torch.manual_seed(4)
    weight, h, code = torch.randn(30, 32, dtype=torch.float64), correlated(32), weight_code(choice, per_row=True)
    found = compensation.compensated(weight, code, h)
    moved = (found != weight).any(1)
    assert int(moved.sum()) > 20
    least = cost(found - weight, h)
    for term in code.terms(found):
        for factor in (-0.01, 0.01):
            assert bool((cost(found + factor * term.scale * term.integers - weight, h) > least)[moved].all())


def test_independent_elements_are_rounded_to_nearest() -> None:
    weight = torch.randn(5, 16, dtype=torch.float64)
    code = weight_code("midrise:3", per_row=True)
    assert torch.equal(compensation.compensated(weight, code, torch.eye(16, dtype=torch.float64)), weight)


@pytest.mark.parametrize(("choice", "per_row"), [(5, True), (8, True), ("full_range:8", True), ("full_range:3", False)])
def test_codes_of_many_values_or_of_one_scale_stay(choice: int | str, per_row: bool) -> None:
    weight = torch.randn(8, 64, dtype=torch.float64)
    assert torch.equal(compensation.compensated(weight, weight_code(choice, per_row=per_row), correlated(64)), weight)


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
    assert all(module.error_cost is None for module in model.modules() if isinstance(module, Weight))


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


def told(model: RecurrentModel) -> dict[str, ErrorCost]:
    """What each matrix of the model is from now on told, by its name."""
    for module in model.matrices().values():
        module.error_cost = ErrorCost(module.weight.shape[1])
    return {name: module.error_cost for name, module in model.matrices().items() if module.error_cost is not None}


class Echo(Own):
    """Gives back what it reads beside what it makes of it."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(x), x


def test_an_output_that_no_weight_reaches_does_not_matter() -> None:
    weights = []
    for kind in (Own, Echo):
        torch.manual_seed(2)
        net, x = kind(), torch.randn(3, 20, 6)
        irnn.prepare(net, QuantConfig(weight="midrise:2"), stage="all", example_inputs=x)
        irnn.calibrate(net, [x])
        before = net.lstm.weight_hh_l0.clone()
        irnn.compensate(net, [x])
        assert not torch.equal(net.lstm.weight_hh_l0, before)
        weights.append(net.lstm.weight_hh_l0)
    assert torch.equal(*weights)


def test_gradients_that_are_not_finite_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.language_model()
    qat.prepare(model, QuantConfig(weight=4), stage="all")
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    monkeypatch.setattr(Classes, "direction", lambda self, y, generator: y * torch.nan)
    with pytest.raises(IrnnError, match=r"embedding .*some gradients that reach it are NaN"):
        qat.compensate(model, [models.ids()])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.named_parameters())


def test_a_single_step_costs_what_its_gradients_say() -> None:
    """A gradient of a matrix that is used once is one outer product, whose square over the rows is H."""
    model = models.language_model(tie=False, layers=2).eval()
    costs = told(model)
    state = {spec.name: torch.randn(1, spec.size) for spec in model.state_specs()}
    expected = {name: torch.zeros_like(cost.total) for name, cost in costs.items()}
    for token in range(7):
        y, _ = model.response(torch.tensor([[token]]), state)
        y.backward(torch.randn_like(y))
        for name, module in model.matrices().items():
            gradient = module.weight.grad.double()
            expected[name] += gradient.T @ gradient
        model.zero_grad()
    assert {"embedding", "decoder", "lstm.0.w_x", "lstm.1.w_h"} <= costs.keys()
    for name, cost in costs.items():
        assert float(cost.total.trace()) > 0
        torch.testing.assert_close(cost.total, expected[name], rtol=1e-4, atol=1e-6)


def test_the_costs_of_many_tokens_add_up() -> None:
    """Those of a batch are the sum of its sequences', one at a time."""
    model = models.language_model(tie=False).eval()
    ids, u = models.ids(3, 9), torch.randn(9, 3, models.VOCABULARY)
    both = []
    for parts in ([slice(0, 3)], [slice(0, 1), slice(1, 2), slice(2, 3)]):
        costs = told(model)
        for part in parts:
            y, _ = model.response(ids[part], None)
            y.backward(u[:, part])
        both.append(costs)
    for name, cost in both[0].items():
        torch.testing.assert_close(cost.total, both[1][name].total, rtol=1e-4, atol=1e-6)


def test_directions_have_the_curvature_of_the_distance() -> None:
    y = torch.tensor([[0.5, -1.0, 2.0], [0.0, 0.3, 0.1]])
    generator = torch.Generator().manual_seed(0)
    for metric in (Classes(), Squares()):
        u = torch.stack([metric.direction(y, generator) for _ in range(20_000)]).double()
        mean = torch.einsum("nri,nrj->rij", u, u) / len(u)
        for row in range(len(y)):

            def distance(z: Tensor, row: int = row, metric: OutputMetric = metric) -> Tensor:
                exact = y[row].double()
                if isinstance(metric, Squares):
                    return (z - exact).square().sum() / 2
                return torch.nn.functional.kl_div(
                    z.log_softmax(0), exact.log_softmax(0), log_target=True, reduction="sum"
                )

            curvature = torch.autograd.functional.hessian(distance, y[row].double())
            torch.testing.assert_close(mean[row], curvature, atol=0.03, rtol=0)
    found = y + 0.3 * torch.randn_like(y)
    expected = torch.nn.functional.kl_div(found.log_softmax(1), y.log_softmax(1), log_target=True, reduction="sum")
    assert Classes().distance(y, found) == pytest.approx(float(expected), rel=1e-4)
    assert Squares().distance(y, found) == pytest.approx(float((found - y).square().sum()), rel=1e-6)


def test_padding_is_not_counted() -> None:
    """What stands behind the end of a sequence changes nothing."""
    torch.manual_seed(3)
    model = Classifier(ClassifierConfig(feature_size=5, classes=3, hidden_size=7)).eval()
    lengths, x, u = torch.tensor([9, 3, 5, 9]), torch.randn(4, 9, 5), torch.randn(4, 3)
    behind = torch.arange(9)[None, :, None] >= lengths[:, None, None]
    found = []
    for features in (x, torch.where(behind, 100.0, x)):
        costs = told(model)
        y, _ = model.response(LabelledBatch(features, lengths, torch.zeros(4).long()), None)
        y.backward(u)
        found.append(costs)
    for name, cost in found[0].items():
        assert float(cost.total.trace()) > 0
        torch.testing.assert_close(cost.total, found[1][name].total)


def test_padded_units_of_an_utterance_are_no_output() -> None:
    model, batch = speech_models.speech_model().eval(), speech_models.speech_batch()
    y, _ = model.response(batch, None)
    whole, _ = model.simulate(batch, None, observing=True)
    ends = (batch.unit_counts + 1).tolist()
    assert len(set(ends)) > 1
    of_steps = [whole[step, row] for step in range(max(ends)) for row, end in enumerate(ends) if step < end]
    assert torch.equal(y, torch.stack(of_steps))


def test_frozen_weights_stay_frozen_and_nothing_is_left_to_chance() -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(2)
        net, x = Own(), torch.randn(3, 20, 6)
        for parameter in net.parameters():
            parameter.requires_grad_(False)
        irnn.prepare(net, QuantConfig(weight="midrise:2"), stage="all", example_inputs=x)
        irnn.calibrate(net, [x])
        before, random = net.lstm.weight_hh_l0.clone(), torch.get_rng_state()
        irnn.compensate(net, [x])
        assert torch.equal(torch.get_rng_state(), random)
        assert not any(parameter.requires_grad or parameter.grad is not None for parameter in net.parameters())
        assert not torch.equal(net.lstm.weight_hh_l0, before)
        found.append(net.state_dict())
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items() if isinstance(tensor, Tensor))


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
    with pytest.raises(IrnnError, match="batch 2: what leaves the network is NaN or infinite"):
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
