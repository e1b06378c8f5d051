"""irnn.LSTM and GRU as modules: torch's parameters by its names, copies, replicas, other dtypes, second derivatives."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch

import irnn
from irnn.errors import IrnnError
from tests.support.pairs import ALL, BOTH, each_cell, pair


@each_cell
def test_parameters_are_torchs_by_its_names(kind: str) -> None:
    theirs, ours = pair(kind, **BOTH)
    assert [name for name, _ in theirs.named_parameters()] == list(ours.torch_names())
    assert all(torch.equal(getattr(ours, name), parameter) for name, parameter in theirs.named_parameters())
    with pytest.raises(IrnnError, match=rf"the state_dict does not fit {kind}\(3, 4.*give the {kind} the sizes"):
        ours.load_state_dict(getattr(torch.nn, kind)(3, 5, **BOTH).state_dict())


@each_cell
def test_a_stack_is_made_of_torchs_parameters(kind: str) -> None:
    """Cell by cell, as a network's own wiring takes them over."""
    theirs, ours = pair(kind, **BOTH)
    for k, layer in enumerate(ours.layers):
        for direction, cell in enumerate(layer.cells.values()):
            again = type(cell).from_torch(theirs, k, direction, hidden=layer.hidden)
            expected = dict(cell.named_parameters())
            assert dict(again.named_parameters()).keys() == expected.keys()
            assert all(torch.equal(value, expected[name]) for name, value in again.named_parameters())
            assert all(value is not other for value in again.parameters() for other in theirs.parameters())


def test_parameters_have_torchs_names() -> None:
    theirs, ours = pair(**ALL)
    assert set(theirs.state_dict()) <= set(dir(ours))
    own = {id(parameter) for parameter in ours.parameters()}
    for name, parameter in theirs.named_parameters():
        mine = getattr(ours, name)
        assert torch.equal(mine, parameter)
        assert id(mine) in own
    assert ours.weight_hh_l0 is ours.layers[0].cells.forward_cell.w_h.weight
    for absent in ("bias_ih_l2", "weight_ih_l", "weight_hr_l0_backward"):
        with pytest.raises(AttributeError, match=absent):
            getattr(ours, absent)
    assert not hasattr(irnn.LSTM(3, 4, bias=False), "bias_hh_l0")
    assert not hasattr(irnn.LSTM(3, 4), "weight_hr_l0")
    assert [name for name in ours.state_dict() if "_l0" in name] == []


def test_parameters_are_written_and_replaced_under_torchs_names() -> None:
    theirs, ours = pair(num_layers=2)
    x = torch.randn(5, 2, 3)
    for module in (theirs, ours):
        module.weight_hh_l0.data.mul_(2)
        torch.nn.init.constant_(module.bias_hh_l1, 0.5)
        module.bias_ih_l0.data[4:8].fill_(1)
        module.weight_ih_l1 = torch.nn.Parameter(torch.full((16, 4), 0.25))
        module.weight_hh_l1.requires_grad_(False)
    torch.testing.assert_close(ours(x)[0], theirs(x)[0], rtol=0, atol=1e-6)
    ours(x)[0].sum().backward()
    assert ours.weight_ih_l1.grad is not None
    assert ours.weight_hh_l1.grad is None
    assert sum(p is ours.weight_ih_l1 for p in ours.parameters()) == 1
    for wrong in (torch.zeros(16, 4), None, torch.nn.Parameter(torch.zeros(16, 5))):
        with pytest.raises(IrnnError, match=r"weight_ih_l1 is a torch.nn.Parameter \[16, 4\], not"):
            ours.weight_ih_l1 = wrong


@each_cell
def test_parameters_are_drawn_as_torch_draws_them(kind: str) -> None:
    theirs, ours = pair(kind, **(ALL if kind == "LSTM" else BOTH))
    for module in (theirs, ours):
        torch.manual_seed(3)
        module.reset_parameters()
    assert all(torch.equal(a, b) for a, b in zip(ours._flat_weights, theirs._flat_weights, strict=True))
    normalized = getattr(irnn, kind)(3, 4, norm="layer")
    torch.nn.init.zeros_(normalized.layers[0].cells.forward_cell.norm_x.weight)
    normalized.reset_parameters()
    assert bool((normalized.layers[0].cells.forward_cell.norm_x.weight == 1).all())


def test_a_module_without_memory_is_filled() -> None:
    with torch.device("meta"):
        lstm = irnn.LSTM(3, 4, **ALL)
    assert lstm.weight_hr_l0.is_meta
    lstm.to_empty(device="cpu").reset_parameters()
    assert all(0 < float(weight.detach().abs().max()) <= 0.5 for weight in lstm.parameters())
    assert all(bool(value.isnan().all()) for value in lstm.buffers())  # nothing observed


def saved(module: torch.nn.Module) -> torch.nn.Module:
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@each_cell
@pytest.mark.parametrize("norm", [None, "mad"])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), saved])
def test_copies_are_whole_and_apart(copied: Any, norm: str | None, kind: str) -> None:
    torch.manual_seed(0)
    rnn, x = getattr(irnn, kind)(3, 4, **(ALL if kind == "LSTM" else BOTH), norm=norm), torch.randn(5, 2, 3)
    other = copied(rnn)
    assert torch.equal(other(x)[0], rnn(x)[0])
    assert other.weight_hh_l1_reverse is other.layers[1].cells.backward_cell.w_h.weight
    other.load_state_dict({f"module.{k}": v for k, v in rnn.state_dict().items()})
    with torch.no_grad():
        other.weight_ih_l0.zero_()
    assert not torch.equal(other(x)[0], rnn(x)[0])


@each_cell
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes(dtype: torch.dtype, kind: str) -> None:
    theirs, ours = (module.to(dtype) for module in pair(kind, **(ALL if kind == "LSTM" else BOTH)))
    x = torch.randn(5, 2, 3, dtype=dtype)
    assert torch.equal(ours(x)[0], theirs(x)[0])
    ours.flatten_parameters()
    assert torch.equal(ours.float()(x.float())[0], theirs.float()(x.float())[0])


def test_replicas_and_functional_calls_have_weights_of_their_own() -> None:
    """DataParallel's replicas hold plain tensors where the module has parameters; functional_call swaps them."""
    theirs, ours = pair(num_layers=2)
    x = torch.randn(5, 2, 3)
    replica = ours._replicate_for_data_parallel()
    assert replica.num_layers == 2
    assert torch.equal(torch.nn.DataParallel(ours)(x)[0], theirs(x)[0])
    doubled = {name: 2 * value for name, value in ours.named_parameters()}
    y, _ = torch.func.functional_call(ours, doubled, (x,))
    assert torch.equal(y, torch.func.functional_call(theirs, {k: 2 * v for k, v in theirs.named_parameters()}, x)[0])
    assert torch.equal(ours(x)[0], theirs(x)[0])


@each_cell
def test_second_derivatives(kind: str) -> None:
    found = []
    for module in pair(kind):
        x = torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
        (first,) = torch.autograd.grad(module(x)[0].square().sum(), x, create_graph=True)
        first.square().sum().backward()
        found.append(module.weight_hh_l0.grad)
    torch.testing.assert_close(found[1], found[0])


@each_cell
def test_autocast(kind: str) -> None:
    theirs, ours = pair(kind, num_layers=2)
    x = torch.randn(5, 2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        for given in (x, x.bfloat16()):
            try:
                expected = theirs(given)[0]
            except RuntimeError:  # a processor, or a oneDNN that is told to be one, whose kernels know no bfloat16
                with pytest.raises(RuntimeError):
                    ours(given)
                continue
            y = ours(given)[0]
            assert y.dtype == expected.dtype
            assert torch.equal(y, expected)
        with pytest.raises(IrnnError, match=rf"input is torch.float64, the {kind} torch.float32; convert: input.to"):
            ours(x.double())


def test_a_dropout_that_does_nothing_is_said() -> None:
    for kind in (torch.nn.LSTM, irnn.LSTM, torch.nn.GRU, irnn.GRU):
        with pytest.warns(UserWarning, match="num_layers"):
            kind(3, 4, dropout=0.5)
