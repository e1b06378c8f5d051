"""Gates side by side, by lines and by tables of all integers: the numbers and gradients of each function alone."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from irnn import PwlConfig, QuantConfig, qat
from irnn.errors import IrnnError
from irnn.models.language_model import LanguageModel, LanguageModelConfig
from irnn.nn.activation import Activation
from irnn.nn.gates import Gates
from irnn.quant.fake import FakeQuantize
from irnn.quant.lines import LookUp, PwlFunction
from irnn.quant.site import QuantSite
from irnn.wiring import simulate_sites

FUNCTIONS = ("sigmoid", "sigmoid", "tanh")  # of four groups: the last has none
SIZE = 5


def gates(*, rounded: bool, bits: int = 16) -> Gates:
    """Of a site whose groups have ranges of their own."""
    site = QuantSite("preactivation", 4 * SIZE, groups=4)
    site.configure(QuantConfig(preactivation=bits), observing=False, quantizing=True)
    site.observed_min, site.observed_max = torch.tensor([-8.0, -3.0, -2.0, -1.0]), torch.tensor([6.0, 9.0, 2.5, 1.0])
    functions = [Activation(function, site, k) for k, function in enumerate(FUNCTIONS)]
    for function in functions:
        function.configure(8, "greedy", quantizing=rounded)
        function.table()
    return Gates(functions)


def alone(gates: Gates, x: Tensor) -> list[Tensor]:
    return [f(part) for f, part in zip(gates.functions, x.chunk(4, -1), strict=False)]


def with_gradient(parts: list[Tensor], x: Tensor) -> list[Tensor]:
    """The values and what reaches x of a gradient that differs from place to place."""
    total = sum(((k + 1) * part * torch.linspace(-1, 2, SIZE)).sum() for k, part in enumerate(parts))
    (gradient,) = torch.autograd.grad(total, x)
    return [*parts, gradient]


@pytest.mark.parametrize("rounded", [False, True])
def test_functions_side_by_side_are_the_functions(rounded: bool) -> None:
    torch.manual_seed(1)
    together = gates(rounded=rounded)
    x = (4 * torch.randn(300, 4 * SIZE)).requires_grad_()
    lines = together.lines(x.device)
    assert lines is not None
    y = PwlFunction.apply(together.own(x), *lines).unbind(-2)
    found, wanted = with_gradient([*y], x), with_gradient(alone(together, x), x)
    assert all(map(torch.equal, found, wanted))
    assert float(wanted[-1][:, :-SIZE].abs().sum()) > 0


@pytest.mark.parametrize("bits", [8, 16])
def test_a_table_of_all_integers_is_the_function(bits: int) -> None:
    """Values outside of the range and at its ends included; scales that move make another table."""
    torch.manual_seed(1)
    together = gates(rounded=True, bits=bits)
    for _ in range(2):
        grid = together.site.grid(torch.empty(0))
        kept: list[Tensor] = []
        x = FakeQuantize.apply(8 * torch.randn(300, 4 * SIZE), *grid, kept).requires_grad_()
        table = together.looked_up(grid)
        assert table is not None
        found = with_gradient([*LookUp.apply(together.own(x), together.own(kept[0]), table).unbind(-2)], x)
        assert all(map(torch.equal, found, with_gradient(alone(together, x), x)))
        assert together.looked_up(grid) is table
        together.site.observed_max *= 1.5
    assert len(pickle.dumps(together._cache)) < 200  # a table goes into no copy


def test_gates_are_the_groups_of_one_site() -> None:
    made = gates(rounded=False)
    with pytest.raises(IrnnError, match="in their order"):
        Gates(made.functions[::-1])


def test_exact_gates_have_no_lines() -> None:
    made = gates(rounded=False)
    made.functions[1].configure(None, "greedy", quantizing=False)
    assert made.lines(torch.device("cpu")) is None


class Operations(TorchDispatchMode):
    """Counts what computes or copies; a view does neither."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        self.count += not func.is_view
        return result


# What one time step launches, forward and back: what a GPU's training step takes is this many times its launch.
@pytest.mark.parametrize(("cell", "stage", "most"), [("lstm", "weights", 35), ("lstm", "all", 48), ("gru", "all", 69)])
def test_a_step_is_few_operations(cell: str, stage: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate_sites, "TABLE_WORTH", 0)
    torch.manual_seed(1)
    model = LanguageModel(LanguageModelConfig(vocabulary_size=9, embedding_size=4, hidden_size=4, cell=cell))
    qat.prepare(model, QuantConfig(), PwlConfig(pieces=4), stage)
    qat.calibrate(model, [torch.arange(8).reshape(2, 4)])
    model.train()

    def operations(steps: int) -> int:
        ids = torch.ones(2, steps, dtype=torch.int64)
        with Operations() as counted:
            model.loss(ids, ids, model.initial_state(2))[0].backward()
        return counted.count

    operations(1)  # the first one joins the gates' lines
    assert operations(5) - operations(4) <= most


@pytest.mark.parametrize("cell", ["lstm", "gru", "mogrifier"])
def test_long_sequences_are_trained_as_short_ones(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By tables of all integers or by lines: loss and gradients have the same bits."""
    torch.manual_seed(1)
    model = LanguageModel(LanguageModelConfig(vocabulary_size=9, embedding_size=6, hidden_size=6, cell=cell))
    qat.prepare(model, QuantConfig(), PwlConfig(), "all")
    qat.calibrate(model, [torch.arange(8).reshape(2, 4)])
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3)  # much leaves the ranges
    model.train()
    ids = torch.randint(0, 9, (3, 7))
    found = []
    for worth in (0, 1):
        monkeypatch.setattr(simulate_sites, "TABLE_WORTH", worth)
        torch.manual_seed(1)  # the same dropout
        loss, _ = model.loss(ids, ids, model.initial_state(3))
        found.append([loss, *torch.autograd.grad(loss, [*model.parameters()])])
    assert all(map(torch.equal, *found))
