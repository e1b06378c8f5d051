"""Mixtures of softmaxes: integers up to the logits, mixed in float behind them."""

from __future__ import annotations

import math
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import irnn
from irnn import metrics
from irnn.arithmetic.torch_ops import TORCH
from irnn.errors import IrnnError
from irnn.models import language_model as models
from irnn.nn import mixture
from irnn.nn.fast.linear_cross_entropy import linear_cross_entropy
from irnn.program.interpreter import Interpreter
from tests.support.models import assert_every_weight_learns, ids, quantized
from tests.support.program_oracle import ProgramOracle


def network(softmaxes: int = 2, **more) -> irnn.LanguageModel:
    """A tied table that is narrower than the layers."""
    torch.manual_seed(0)
    config = irnn.LanguageModelConfig(
        60, 7, 12, num_layers=2, dropout=0.0, cell="mogrifier", cell_options={"rounds": 2, "rank": 4}, sum_layers=True,
        down_projection=True, softmaxes=softmaxes, **more,
    )  # fmt: skip
    model = irnn.LanguageModel(config)
    for parameter in model.parameters():
        parameter.data.mul_(3)
    return model


def by_formula(model: irnn.LanguageModel, y: torch.Tensor) -> torch.Tensor:
    """``log sum_k pi_k softmax(E tanh(W_k y + b_k) + b)`` of features ``[size]``, term by term in Python's numbers."""
    p = {name: value.detach().double() for name, value in model.named_parameters()}
    table, bias = p["embedding.weight"], p["decoder.bias_0"]
    rows = (p["mixture.latent.weight"] @ y + p["mixture.latent.bias_0"]).tolist()
    shares = [math.exp(v) for v in (p["mixture.share.weight"] @ y).tolist()]
    mixed = [0.0] * len(table)
    for k, share in enumerate(shares):
        latent = [math.tanh(v) for v in rows[k * table.shape[1] : (k + 1) * table.shape[1]]]
        terms = [math.exp(sum(w * v for w, v in zip(row, latent, strict=True)) + b)
                 for row, b in zip(table.tolist(), bias.tolist(), strict=True)]  # fmt: skip
        for word, term in enumerate(terms):
            mixed[word] += share / sum(shares) * term / sum(terms)
    return torch.tensor(mixed, dtype=torch.double).log()


def check_formula(model: irnn.LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    wire = model.mixture.wire
    monkeypatch.setattr(model.mixture, "wire", lambda a, y, p: seen.append(y) or wire(a, y, p))
    log_probabilities, _ = model.eval()(ids(1, 3))
    expected = by_formula(model, seen[0][-1, 0].detach().double())
    torch.testing.assert_close(log_probabilities[0, -1].double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [2, 3])
def test_it_is_the_formula(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    check_formula(network(count), monkeypatch)


# One bug at a time in the mixture's own text.
PLANTED = {
    "softmaxes are the same": ("zip(self.tanh, parts, strict=True)", "zip(self.tanh, [parts[0]] * 2, strict=True)"),
    "no tanh": ("a.activation(tanh, part)", "part"),
    "equal shares": ("a.linear(self.share, y)", "0 * a.linear(self.share, y)"),
    "softmaxes change places": ("return latent,", "return latent[::-1],"),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_every_planted_bug_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = PLANTED[bug]
    text = Path(mixture.__file__).read_text(encoding="utf-8")
    assert text.count(old) == 1
    copy = types.ModuleType("irnn.nn.mixture_copy")
    exec(compile(text.replace(old, new), "mixture.py (mutated)", "exec"), copy.__dict__)
    monkeypatch.setattr(models, "Mixture", copy.Mixture)
    with pytest.raises((AssertionError, IrnnError, RuntimeError)):
        check_formula(network(), monkeypatch)


@pytest.mark.parametrize("scale", [1, 30])
def test_scores_of_one_are_its_logits_and_of_a_mixture_log_probabilities(scale: float) -> None:
    rng = np.random.default_rng(0)
    first, second, shares = (rng.integers(-99, 99, (4, size)).astype(np.int32) for size in (5, 5, 2))
    assert np.array_equal(metrics.scores([first], [0.25]), first * np.float32(0.25))
    found = metrics.scores([first, second, shares], [scale, 0.5 * scale, 0.01], torch.float64).numpy()

    def softmax(row: np.ndarray) -> np.ndarray:
        weights = np.exp(row - row.max())
        return weights / weights.sum()

    for k in range(4):
        pi = softmax(0.01 * shares[k])
        mixed = pi[0] * softmax(scale * first[k]) + pi[1] * softmax(0.5 * scale * second[k])
        np.testing.assert_allclose(np.exp(found[k]), mixed, rtol=1e-9, atol=1e-300)
    with pytest.raises(ValueError, match="shorter"):
        metrics.scores([first, second, shares], [1.0])


@pytest.mark.parametrize(("bf16", "tolerance"), [(False, {}), (True, dict(rtol=0.03, atol=0.005))])
@pytest.mark.parametrize("pieces", [False, True])
def test_the_loss_and_its_gradient_are_those_of_the_mixture(
    pieces: bool, bf16: bool, tolerance: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pieces:
        monkeypatch.setattr("irnn.nn.fast.linear_cross_entropy.PIECE_BYTES", 50 * 40 * 4)
    torch.manual_seed(0)
    xs = [torch.randn(7, 19, 12, requires_grad=True) for _ in range(3)]
    weight, bias = torch.randn(40, 12), torch.randn(40, requires_grad=True)
    weight = (weight / 12**0.5).requires_grad_()
    shares, targets = torch.randn(7, 19, 3, requires_grad=True), torch.randint(0, 40, (7, 19))
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        ours = linear_cross_entropy(xs, weight, bias, targets, shares)
    outputs = [*(x @ weight.T + bias for x in xs), shares]
    theirs = torch.nn.functional.nll_loss(metrics.scores(outputs, [1.0] * 4).flatten(0, 1), targets.flatten())
    torch.testing.assert_close(ours, theirs, **tolerance)
    inputs = (*xs, weight, bias, shares)
    for a, b in zip(torch.autograd.grad(ours * 3, inputs), torch.autograd.grad(theirs * 3, inputs), strict=True):
        torch.testing.assert_close(a, b, **tolerance)


def test_a_share_of_nothing_has_a_gradient() -> None:
    """A softmax that never answers, and a target that neither would give, leave numbers."""
    x = torch.tensor([[200.0, 0.0]], requires_grad=True)
    shares = torch.tensor([[200.0, -200.0]], requires_grad=True)
    weight = torch.eye(2, requires_grad=True)
    loss = linear_cross_entropy([x, -x], weight, torch.zeros(2), torch.tensor([1]), shares)
    gradients = torch.autograd.grad(loss, (x, weight, shares))
    assert all(torch.isfinite(g).all() for g in (loss, *gradients))
    assert loss.item() > 80


CODES = irnn.QuantConfig(weight=4, embedding="alternating:2", logits_weight="alternating:2", hidden="alternating:2")


@pytest.mark.parametrize(
    ("count", "quant"),
    [(2, irnn.QuantConfig()), (3, CODES), (1, irnn.QuantConfig())],
    ids=["two, 8 bits", "three, codes at run time", "one"],
)
def test_evaluation_is_the_programs_integers_mixed(count: int, quant: irnn.QuantConfig, tmp_path: Path) -> None:
    """Of PyTorch, the interpreter, what is stored, and the independent evaluator."""
    model = quantized(network(count), quant)
    program, tokens = irnn.convert(model), ids(2, 6)
    outputs, state = program.run_all(tokens.numpy())
    assert [y.shape[-1] for y in outputs] == ([60] if count == 1 else [60] * count + [count])
    log_probabilities, after = model(tokens)
    assert torch.equal(log_probabilities, metrics.scores(outputs, program.output_scales))
    assert all(np.array_equal(state[name], after[name].numpy()) for name in state)
    assert count == 1 or not np.array_equal(outputs[0], outputs[1])
    expected, last = ProgramOracle(program).run_batch({"ids": tokens.numpy()}, None)
    program.save(tmp_path / "program")
    everyone = [
        (outputs, state), irnn.load(tmp_path / "program").run_all(tokens.numpy()),
        Interpreter(program, TORCH).run_all(tokens),
    ]  # fmt: skip
    for found, after in everyone:
        for mine, wanted in zip((*found, *after.values()), (*expected, *last.values()), strict=True):
            assert np.array_equal(np.asarray(mine), wanted)


def test_the_table_and_its_bias_are_stored_once() -> None:
    for program in (irnn.convert(quantized(network())), irnn.float_program(network())):
        tables = [name for name, tensor in program.tensors.items() if tensor.data.shape[0] == 60]
        assert len(tables) == 2, tables


def test_it_says_that_it_is_mixed_in_float() -> None:
    program = irnn.convert(quantized(network()))
    said = "mixed: in float, behind the program: logits of 2 softmaxes, then the logits of their shares"
    assert said in program.describe()
    with pytest.raises(
        IrnnError, match=r"^the program is a mixture of softmaxes, mixed in float: no top of its integers"
    ):
        program.top(3)
    assert "mixed" not in irnn.convert(quantized(network(1))).describe()


def test_every_weight_has_a_gradient_in_every_stage() -> None:
    assert_every_weight_learns(network())


def test_the_loss_of_integers_is_that_of_their_mixture() -> None:
    model = quantized(network())
    tokens = ids(2, 5)
    loss, _ = model.loss(tokens[:, :-1], tokens[:, 1:])
    program = irnn.convert(model)
    nats, count = zip(
        *(
            metrics.stream_cross_entropy(
                program.run_all, row[1:].numpy(), int(row[0]), scales=program.output_scales, chunk=2
            )
            for row in tokens
        ),
        strict=True,
    )
    assert abs(float(loss) - sum(nats) / sum(count)) < 1e-5


def test_bad_numbers_are_one_line() -> None:
    with pytest.raises(IrnnError, match=r"^softmaxes=0: must be at least 1$"):
        irnn.LanguageModelConfig(10, 4, 4, softmaxes=0)
