"""Dynamic evaluation of a float language model, against its formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import irnn
from irnn import qat
from irnn.dynamic_evaluation import DynamicConfig, dynamic_cross_entropy, gradient_scales
from irnn.errors import IrnnError
from irnn.metrics import stream_cross_entropy
from irnn.models.language_model import LanguageModel
from tests.support.models import ids, language_model


@pytest.fixture
def model() -> LanguageModel:
    return language_model(size=8, dropout=0.3).eval()


def scales_of(model: LanguageModel) -> list[torch.Tensor]:
    return gradient_scales(model, [(ids(3, 6)[:, :-1], ids(3, 6)[:, 1:]), (ids(2, 4, 5)[:, :-1], ids(2, 4, 5)[:, 1:])])


def static(model: LanguageModel, text: np.ndarray) -> float:
    def run(tokens: np.ndarray, state: object) -> tuple[list[torch.Tensor], object]:
        logits, state = model(torch.from_numpy(tokens), state)
        return [logits.detach()], state

    return stream_cross_entropy(run, text, 0)[0]


def test_weights_that_do_not_move_give_the_static_figure(model: LanguageModel) -> None:
    text = ids(1, 23)[0].numpy()
    nats, count = dynamic_cross_entropy(model, text, 0, scales_of(model), DynamicConfig(rate=0.0, decay=0.0))
    assert count == 23
    assert nats == pytest.approx(static(model, text), rel=1e-5)


def test_a_step_is_its_formula_and_is_taken_behind_the_segment(model: LanguageModel) -> None:
    """Two segments of three tokens, and a third one that no step of its own may change; all weights by hand."""
    text, config = ids(1, 8)[0], DynamicConfig(rate=0.01, decay=0.3, epsilon=0.01, steps=3)
    scales, start = scales_of(model), {name: p.detach().clone() for name, p in model.named_parameters()}
    found, count = dynamic_cross_entropy(model, text.numpy(), 0, scales, config)
    assert all(torch.equal(p, start[name]) for name, p in model.named_parameters()), "the weights are as before"
    total, state = 0.0, None
    before = torch.cat([torch.zeros(1, dtype=torch.int64), text[:-1]])
    for piece in (slice(0, 3), slice(3, 6), slice(6, 8)):
        model.zero_grad()
        logits, state = model(before[None, piece], state)
        loss = torch.nn.functional.cross_entropy(logits[0], text[piece])
        total += loss.item() * len(text[piece])
        loss.backward()
        state = {name: value.detach() for name, value in state.items()}
        with torch.no_grad():
            for (name, p), scale in zip(model.named_parameters(), scales, strict=True):
                share = torch.clamp(0.3 * scale / scale.mean(), max=1)
                p.copy_(p + share * (start[name] - p) - 0.01 * p.grad / (scale + 0.01))
    assert found == pytest.approx(total, rel=1e-4)
    assert count == 8
    assert total != pytest.approx(static(model, text.numpy()), rel=1e-3)


def test_the_scale_is_the_root_mean_square_of_gradients(model: LanguageModel) -> None:
    squares = [torch.zeros_like(p) for p in model.parameters()]
    for rows, seed in ((3, 1), (2, 5)):
        tokens = ids(3, 6) if seed == 1 else ids(2, 4, 5)
        model.zero_grad()
        logits, _ = model(tokens[:, :-1])
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        for square, p in zip(squares, model.parameters(), strict=True):
            square += rows * p.grad**2
    for scale, square in zip(scales_of(model), squares, strict=True):
        torch.testing.assert_close(scale, (square / 2).sqrt(), rtol=1e-3, atol=1e-7)


def test_a_text_that_repeats_itself_is_learnt_as_it_is_read(model: LanguageModel) -> None:
    text = np.tile(ids(1, 6)[0].numpy(), 30)
    nats, _ = dynamic_cross_entropy(model, text, 0, scales_of(model), DynamicConfig(rate=0.02, decay=0.0))
    assert nats < 0.5 * static(model, text)


def test_only_a_float_network_learns(model: LanguageModel) -> None:
    scales = scales_of(model)
    qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), "pwl")
    with pytest.raises(IrnnError, match=r"^the model is in stage 'pwl': only a float network learns as it reads$"):
        dynamic_cross_entropy(model, ids(1, 4)[0].numpy(), 0, scales, DynamicConfig())


@pytest.mark.parametrize(
    ("given", "message"),
    [({"rate": -1.0}, "rate=-1.0: must be at least 0"), ({"decay": 2.0}, "decay=2.0: must lie in 0 to 1"),
     ({"epsilon": 0.0}, "epsilon=0.0: must be greater than 0"), ({"steps": 0}, "steps=0: must be at least 1")],
)  # fmt: skip
def test_bad_numbers_are_one_line(given: dict, message: str) -> None:
    with pytest.raises(IrnnError, match=f"^{message}$"):
        DynamicConfig(**given)
