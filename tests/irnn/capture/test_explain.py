"""What stands in the way of a network: all of it at once, by module, file and line, and nothing is changed."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

import irnn
from examples.own_networks import NETWORKS, build, randn
from irnn.errors import IrnnError


class Mixed(nn.Module):
    """Four things that have no integer form, between others that have one."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(6, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.rnn = nn.GRU(8, 8, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sin(self.into(x))
        x, _ = self.attention(x, x, x)
        y, _ = self.rnn(x)
        y = y / y.norm(dim=-1, keepdim=True)
        return self.out(torch.softmax(y, -1))


EXAMPLE = (randn(2, 7, 6, seed=0),)


def test_every_problem_at_once_with_its_place() -> None:
    model = Mixed().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = irnn.explain(model, EXAMPLE)
    problems = {row.op: row for row in found.problems}
    assert set(problems) == {"sin", "MultiheadAttention", "norm", "div", "linear"}
    line = Mixed.forward.__code__.co_firstlineno
    assert problems["sin"].where == f"{__file__}:{line + 1}"
    assert problems["MultiheadAttention"].name == "attention"
    assert problems["norm"].nearest == "nn.LayerNorm"
    assert "softmax" in problems["linear"].problem
    assert type(model) is Mixed
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    with pytest.raises(IrnnError) as error:
        irnn.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), example_inputs=EXAMPLE)
    assert all(row.name in str(error.value) for row in found.problems)
    assert "\n" not in str(error.value)
    assert type(model) is Mixed


def test_as_a_dict_and_as_a_table() -> None:
    found = irnn.explain(Mixed().eval(), EXAMPLE)
    plain = found.to_dict()
    assert plain["network"] == "Mixed"
    assert not plain["supported"]
    named = {row["name"]: row for row in plain["operations"]}
    assert named["into"]["form"] == "int32 accumulators"
    assert named["into"]["bits"] == "weight 8"
    assert named["x"]["shape"] == "[batch, time, 6]"
    assert named["attention"]["problem"] == "has no integer form"
    assert "MultiheadAttention" in str(found)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.__name__)
def test_what_can_be_prepared_has_a_form_for_everything(network) -> None:
    model = build(network)
    found = irnn.explain(model, network.example())
    assert not found.problems
    assert found.to_dict()["supported"]
    assert type(model) is network


class Function(nn.Module):
    """A linear, an LSTM and a function of its output."""

    def __init__(self, function) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 5, batch_first=True)
        self.out = nn.Linear(5, 4)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def looped(self: Function, x: Tensor) -> Tensor:
    y, _ = self.lstm(x)
    total = y[:, 0]
    for t in range(1, y.size(1)):
        total = total + y[:, t]
    return self.out(total)


def test_what_stands_behind_a_condition_is_listed_too() -> None:
    def function(self: Function, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = x * 2
        return torch.sin(self.out(self.lstm(x)[0]))

    found = irnn.explain(Function(function).eval(), EXAMPLE)
    assert ["decides on the numbers" in row.problem for row in found.problems] == [True, False]
    assert found.problems[1].op == "sin"
    assert found.problems[0].where == f"{__file__}:{function.__code__.co_firstlineno + 1}"


WRONG = {
    "a condition on numbers": (lambda self, x: self.out(x[..., :5]) if x.sum() > 0 else x, "decides on the numbers"),
    "a number out of a tensor": (lambda self, x: self.lstm(x)[0] * x.max().item(), "asks for the numbers in a tensor"),
    "a length that is written down": (
        lambda self, x: self.out(self.lstm(x)[0].reshape(-1, 7, 5)[:, -1]), "the length is baked in",
    ),
    "an unrolled loop": (looped, "a loop is unrolled over an axis of 7"),
    "a swapped batch and time": (
        lambda self, x: self.lstm(torch.cat([self.lstm(x)[0], x[..., :1]], -1).transpose(0, 1))[0], "for the batch and",
    ),
    "the last steps alone": (lambda self, x: self.out(self.lstm(x[:, -3:])[0]), "which has no axis of time"),
    "an activation": (lambda self, x: torch.sin(self.out(self.lstm(x)[0])), "has no integer form"),
    "other things in training": (
        lambda self, x: torch.tanh(self.out(self.lstm(x)[0])) if self.training else self.out(self.lstm(x)[0]),
        "does other things in train()",
    ),
    "an error of its own": (lambda self, x: self.out(x), "cannot be run on example_inputs"),
}  # fmt: skip


@pytest.mark.parametrize(("function", "says"), WRONG.values(), ids=WRONG)
def test_what_cannot_is_one_message(function, says) -> None:
    model = Function(function).eval()
    with pytest.raises(IrnnError) as error:
        irnn.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), example_inputs=EXAMPLE)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert type(model) is Function


def test_another_format_is_listed() -> None:
    with pytest.raises(IrnnError, match=r"is torch\.float64") as error:
        irnn.prepare(Mixed().double(), irnn.QuantConfig(), irnn.PwlConfig(), example_inputs=(EXAMPLE[0].double(),))
    assert "sin" in str(error.value)


def test_calls_that_do_not_fit() -> None:
    network = NETWORKS[2]
    with pytest.raises(IrnnError, match="give example_inputs="):
        irnn.prepare(build(network), irnn.QuantConfig(), irnn.PwlConfig())
    with pytest.raises(IrnnError, match="has not been prepared"):
        irnn.convert(build(network))
    model = irnn.prepare(build(network), irnn.QuantConfig(), irnn.PwlConfig(), example_inputs=network.example())
    with pytest.raises(IrnnError, match="calibration got no batch"):
        irnn.calibrate(model, [])
    with pytest.raises(IrnnError, match="cannot be called with 2 arguments"):
        irnn.calibrate(model, [(torch.zeros(2, 5, 3), torch.zeros(2))])
    with pytest.raises(IrnnError, match=r"history has the shape \[2, 5, 4\], not \[batch, time, 3\]"):
        irnn.calibrate(model, [torch.zeros(2, 5, 4)])


def test_tied_weights_of_other_bits_are_refused() -> None:
    network = next(n for n in NETWORKS if n.__name__ == "StreamModel")
    with pytest.raises(IrnnError, match="embedding=4 and logits_weight=8 differ"):
        irnn.prepare(build(network), irnn.QuantConfig(embedding=4), irnn.PwlConfig(), example_inputs=network.example())


class Large(nn.Module):
    """A word model of 35 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10000, 1500)
        self.lstm = nn.LSTM(1500, 1500)
        self.words = nn.Linear(1500, 10000, bias=False)
        self.words.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.words(self.lstm(self.table(ids))[0])


def test_size_costs_nothing() -> None:
    with torch.device("meta"):
        model = Large()
    model.to_empty(device="cpu")
    assert sum(p.numel() for p in model.parameters()) > 33e6
    start = time.process_time()
    irnn.explain(model, torch.zeros(35, 20, dtype=torch.long))
    irnn.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), example_inputs=torch.zeros(35, 20, dtype=torch.long))
    assert time.process_time() - start < 5
