"""Compiled steps compute what steps compute: losses, gradients, observed ranges, states.

Most tests compute what would be compiled as it is: that shows what is handed in and out.  What the compiler makes of
it is slow to build.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from irnn import PwlConfig, QuantConfig, qat
from irnn.data.labelled.batches import LabelledBatch
from irnn.models.classifier import Classifier, ClassifierConfig
from irnn.models.language_model import LanguageModel, LanguageModelConfig
from irnn.wiring import compiled_steps
from irnn.wiring.compiled_steps import CompiledSteps
from irnn.wiring.simulate import Simulation

IDS = torch.arange(48).reshape(4, 12) * 7 % 20


def language_model(cell: str, stage: str, quant: QuantConfig | None = None, **more: Any) -> LanguageModel:
    torch.manual_seed(1)
    config = LanguageModelConfig(vocabulary_size=20, embedding_size=6, hidden_size=6, cell=cell, dropout=0.0, **more)
    model = LanguageModel(config)
    qat.prepare(model, quant or QuantConfig(), PwlConfig(pieces=4), stage)
    if stage != "float":
        qat.calibrate(model, [IDS])
    return model.train()


def trained_on(model: LanguageModel) -> list[Tensor]:
    """Two batches with carried state: losses, gradients, ranges, states."""
    state, found = None, []
    for ids in (IDS, IDS.flip(1)):
        loss, state = model.loss(ids[:, :-1], ids[:, 1:], state)
        loss.backward()
        found += [loss.detach(), *state.values()]
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(gradients) == sum(p.requires_grad for p in model.parameters())
    return [*found, *gradients, *model.buffers()]


@pytest.fixture
def as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)


def assert_equal_when_compiled(model: LanguageModel) -> None:
    plain = copy.deepcopy(model)
    model.compiled_steps = CompiledSteps()
    for a, b in zip(trained_on(model), trained_on(plain), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=1e-7, equal_nan=True)


@pytest.mark.usefixtures("as_it_is")
@pytest.mark.parametrize(
    ("cell", "stage", "quant"),
    [
        ("lstm", "activations", QuantConfig(weight=4)),
        ("gru", "all", QuantConfig(weight="alternating:2", hidden="alternating:2")),
        ("ornn", "all", QuantConfig(weight=6)),
        ("elman", "weights", QuantConfig(weight="ternary")),
    ],
)
def test_a_training_is_the_same(cell: str, stage: str, quant: QuantConfig) -> None:
    assert_equal_when_compiled(language_model(cell, stage, quant))


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "stage"), [("lstm", "activations"), ("gru", "all"), ("ornn", "all")])
def test_the_compilers_code_trains_the_same(cell: str, stage: str) -> None:
    assert_equal_when_compiled(language_model(cell, stage))


def test_a_step_is_compiled_once_for_all_steps_batches_and_tables() -> None:
    """But for the first one of a stream, whose states have no gradient."""
    model = language_model("lstm", "activations")
    counter = CompileCounterWithBackend("eager")
    model.compiled_steps = CompiledSteps(counter)
    trained_on(model)
    first = counter.frame_count
    for _ in range(2):
        model.refresh()  # an epoch's start: new tables
        trained_on(model)
    assert first <= 3
    assert counter.frame_count == first


@pytest.mark.usefixtures("as_it_is")
def test_padding_is_no_part_of_what_is_observed() -> None:
    torch.manual_seed(1)
    model = Classifier(ClassifierConfig(feature_size=5, classes=3, hidden_size=6, cell="gru", dropout=0.0))
    x, lengths = torch.randn(3, 7, 5), torch.tensor([7, 4, 2])
    batch = LabelledBatch(x, lengths, torch.tensor([0, 1, 2]))
    qat.prepare(model, QuantConfig(), PwlConfig(pieces=4), "activations")
    qat.calibrate(model, [batch])
    found = []
    for steps in (None, CompiledSteps()):
        again = copy.deepcopy(model).train()
        again.compiled_steps = steps
        again(x.masked_fill(torch.arange(7)[None, :, None] >= lengths[:, None, None], 1e4), lengths).sum().backward()
        found.append([*again.buffers(), *(p.grad for p in again.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=1e-7, equal_nan=True)


@pytest.mark.usefixtures("as_it_is")
def test_a_weight_whose_gradient_is_lost_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted bug: the gradient of the last step's product alone."""
    monkeypatch.setattr(
        compiled_steps._Results,
        "backward",
        staticmethod(lambda ctx, gradient: (gradient[-1].T @ ctx.inputs[-1], None, None)),
    )
    with pytest.raises(AssertionError, match="not close"):
        assert_equal_when_compiled(language_model("lstm", "all"))


@pytest.mark.usefixtures("as_it_is")
def test_constants_out_of_their_order_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted bug: scales and tables of two sites changed places."""
    of_step = compiled_steps._Constants.of_step

    def swapped(self: Any, t: int) -> Any:
        read = of_step(self, t)
        pairs = [place for place, of in enumerate(read) if len(of) == 3 and len(of[0]) == 1]
        read[pairs[-1]], read[pairs[-2]] = read[pairs[-2]], read[pairs[-1]]
        return read

    monkeypatch.setattr(compiled_steps._Constants, "of_step", swapped)
    with pytest.raises(AssertionError, match="not close"):
        assert_equal_when_compiled(language_model("lstm", "all"))


def test_a_step_that_is_no_layers_own_is_computed_as_it_is() -> None:
    """A function may read what a compiled one would not see change."""
    simulation = Simulation({}, training=True, observing=False)
    steps = [torch.zeros(2, 3)]
    assert CompiledSteps().bind(simulation, lambda a, x, h: (x, h), steps, [torch.zeros(2, 3)]) is None


def test_copies_are_not_compiled() -> None:
    model = language_model("lstm", "float")
    model.compiled_steps = CompiledSteps()
    assert copy.deepcopy(model).compiled_steps is None
