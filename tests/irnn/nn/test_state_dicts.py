"""State dicts that irnn.LSTM loads, torch's and its own, wrapped or not; those that do not fit are one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import irnn
from irnn.errors import IrnnError
from irnn.nn.torch_interface.state_dicts import unwrapped
from tests.support.pairs import ALL, pair


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("own_names", [False, True])
def test_state_dicts_of_wrapped_modules(prefix: str, own_names: bool) -> None:
    theirs, source = pair(**ALL)
    entries = (source if own_names else theirs).state_dict()
    entries = {prefix + name: value for name, value in entries.items()}
    names = list(entries)
    for target, inside in ((irnn.LSTM(3, 4, **ALL), ""), (torch.nn.ModuleDict({"a": irnn.LSTM(3, 4, **ALL)}), "a.")):
        target.load_state_dict({inside + name: value for name, value in entries.items()})
        assert all(torch.equal(a, b) for a, b in zip(target.parameters(), source.parameters(), strict=True))
    assert list(entries) == names


@pytest.mark.parametrize("own_names", [False, True])
@pytest.mark.parametrize(
    ("arguments", "change", "message"),
    [
        (dict(num_layers=3), None, r"unexpected: .*l2|unexpected: layers\.2"),
        (dict(num_layers=1), None, r"missing: .*(l1|layers\.1).* and \d more"),
        (dict(bidirectional=True), None, r"unexpected: .*and \d+ more"),
        (dict(bias=False), None, r"missing: (bias_ih_l0|layers\.0.*bias_0)"),
        (dict(proj_size=2), None, r"unexpected: (weight_hr_l0|layers\.0.*w_r)"),
        (dict(input_size=5), None, r"of another shape: (weight_ih_l0|layers.*w_x\.weight) is \[16, 5\], not \[16, 3\]"),
        (dict(hidden_size=6), None, r"of another shape: .*is \[24, 3\], not \[16, 3\]"),
        ({}, lambda entries: {"state_dict": entries, "epoch": 3}, r"missing: .*unexpected: state_dict, epoch"),
        ({}, lambda entries: entries | {"decoder.weight": torch.zeros(2)}, r"unexpected: decoder\.weight"),
        ({}, lambda entries: entries | {next(iter(entries)): [1, 2]}, "is list, not"),
        ({}, lambda entries: {}, "missing: "),
        ({}, lambda entries: entries | {f"module.{k}": v for k, v in entries.items()}, "twice, with and without"),
    ],
)  # fmt: skip
def test_a_state_dict_that_does_not_fit_is_one_line(
    arguments: dict, change: Any, message: str, own_names: bool
) -> None:
    kind = irnn.LSTM if own_names else torch.nn.LSTM
    entries = dict(kind(**dict(input_size=3, hidden_size=4, num_layers=2) | arguments).state_dict())
    entries = change(entries) if change else entries
    target = irnn.LSTM(3, 4, num_layers=2)
    before = [parameter.clone() for parameter in target.parameters()]
    with pytest.raises(IrnnError, match=message) as error:
        target.load_state_dict(entries)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600
    assert all(torch.equal(a, b) for a, b in zip(target.parameters(), before, strict=True))


def test_a_part_of_a_state_dict_needs_leave() -> None:
    theirs, ours = pair(num_layers=2)
    part = {"weight_hh_l1": theirs.weight_hh_l1 + 1}
    with pytest.raises(IrnnError, match="missing: weight_ih_l0, bias_ih_l0, bias_hh_l0 and 4 more"):
        ours.load_state_dict(part)
    missing, unexpected = ours.load_state_dict(part | {"weight_hh_l9": theirs.weight_hh_l1}, strict=False)
    assert "layers.1.cells.forward_cell.w_h.weight" not in missing
    assert unexpected == ["weight_hh_l9"]
    assert torch.equal(ours.weight_hh_l1, theirs.weight_hh_l1 + 1)
    both = {**theirs.state_dict(), "layers.0.cells.forward_cell.w_h.weight": theirs.weight_hh_l0}
    with pytest.raises(IrnnError, match=r"unexpected: layers\.0\.cells\.forward_cell\.w_h\.weight"):
        ours.load_state_dict(both)


def test_what_wrappers_leave_is_taken_off() -> None:
    names = {
        "module._orig_mod.a.b": "a.b",
        "a._orig_mod.b.c": "a.b.c",
        "a.module.d": "a.module.d",
        "modules.e": "modules.e",
    }
    assert unwrapped(dict.fromkeys(names, 1)) == dict.fromkeys(names.values(), 1)
    with pytest.raises(IrnnError, match="the state_dict is a list; give a mapping"):
        irnn.LSTM(3, 4).load_state_dict([1])


def test_entries_of_a_part_of_a_network_are_read_as_well() -> None:
    """A network of the user's own: names and shapes are those of its part."""
    theirs, source = (torch.nn.ModuleDict({"lstm": lstm, "out": torch.nn.Linear(4, 2)}) for lstm in pair(num_layers=2))
    target = torch.nn.ModuleDict({"lstm": irnn.LSTM(3, 4, num_layers=2), "out": torch.nn.Linear(4, 2)})
    first = ("lstm.weight_ih_l0", "lstm.layers.0.cells.forward_cell.w_x.weight")
    for name, entries in zip(first, (theirs.state_dict(), source.state_dict()), strict=True):
        target.load_state_dict(entries)
        assert torch.equal(target["lstm"].weight_hh_l1, theirs["lstm"].weight_hh_l1)
        with pytest.raises(IrnnError, match=r"is \[16, 5\], not \[16, 3\]"):
            target.load_state_dict(entries | {name: torch.zeros(16, 5)})
