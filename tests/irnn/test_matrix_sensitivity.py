"""Sensitivity: what each matrix, quantized alone, does to the output."""

import copy
import math

import pytest
import torch

import irnn
from irnn import qat
from irnn.errors import IrnnError
from irnn.matrix_sensitivity import sensitivity
from irnn.quant.codes import weight_code
from tests.support.models import ids, language_model


def test_it_is_the_noise_of_a_network_whose_matrix_has_been_rounded():
    """Against torch's own way through a copy whose parameter holds the quantized values."""
    model = language_model(tie=False).eval()
    batches = [ids(4, 20), ids(4, 20, seed=2)]
    rows = {(row.name, row.choice): row for row in sensitivity(model, batches, [4, "midrise:2"])}
    other = copy.deepcopy(model)
    parameter = other.lstm.layers[0].cells.forward_cell.w_h.weight
    with torch.no_grad():
        parameter.copy_(weight_code(4, per_row=True).fake(parameter))
        pairs, states = [], [None, None]
        for batch in batches:
            (exact, states[0]), (found, states[1]) = model(batch, states[0]), other(batch, states[1])
            pairs.append((exact.double(), found.double()))
    signal, noise = (
        sum(float(t.square().sum()) for t in ts) for ts in zip(*((x, y - x) for x, y in pairs), strict=True)
    )
    assert rows["lstm.0.w_h", 4].decibels == pytest.approx(10 * math.log10(signal / noise), abs=0.01)
    assert rows["lstm.0.w_h", 4].size_bytes == parameter.numel() // 2
    assert rows["lstm.0.w_h", "midrise:2"].size_bytes == parameter.numel() // 4


def test_more_bits_less_noise_and_the_network_stays_as_it_was():
    model = language_model(norm=None, layers=2).train()
    tokens = ids(4, 20)
    before, state = model.eval()(tokens)[0], {k: v.clone() for k, v in model.state_dict().items()}
    rows = sensitivity(model.train(), [tokens], [2, 4, 8])
    assert model.training
    assert torch.equal(model.eval()(tokens)[0], before)
    assert all(
        torch.equal(value.nan_to_num(9), state[name].nan_to_num(9)) for name, value in model.state_dict().items()
    )
    names = {row.name for row in rows}
    assert names == {"embedding", "lstm.0.w_x", "lstm.0.w_h", "lstm.1.w_x", "lstm.1.w_h"}  # output: tied
    for name in names:
        few, some, many = (row.decibels for row in rows if row.name == name)
        assert few < some < many
    table = str(rows)
    assert all(name in table for name in names)


def test_bad_input_is_one_line():
    model = language_model()
    with pytest.raises(IrnnError, match="no batch"):
        sensitivity(model, [])
    with pytest.raises(IrnnError, match="'nonsense' is no weight code"):
        sensitivity(model, [ids()], ["nonsense"])
    assert not any(module.quantizing for module in model.matrices().values())
    qat.prepare(model, irnn.QuantConfig(), irnn.PwlConfig(), "pwl")
    with pytest.raises(IrnnError, match="stage 'pwl'"):
        sensitivity(model, [ids()])


def test_a_network_of_one_s_own():
    """By its modules' names; the network itself, not prepared, is refused in one line."""
    torch.manual_seed(0)
    net, x = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)), torch.randn(4, 5, 6)
    with pytest.raises(IrnnError, match="has not been prepared"):
        sensitivity(net, [x])
    irnn.prepare(net, irnn.QuantConfig(), irnn.PwlConfig(), example_inputs=x)
    rows = {(row.name, row.choice): row.decibels for row in sensitivity(net, [x], [4, 8])}
    assert {name for name, _ in rows} == {"0", "2"}
    assert rows["0", 8] > rows["0", 4] > 0
