"""Weight codes: one generic test for all of them, what each promises, and networks that are trained with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import irnn
from irnn import qat
from irnn.errors import IrnnError
from irnn.quant.codes import CODES, weight_code
from irnn.quant.codes.base import Term, WeightCode
from irnn.wiring.record_integer import IntegerRecorder
from tests.models import ids, language_model, quantized, quantized_layer
from tests.strategies import quick
from tests.test_converted_programs import assert_all_equal

CHOICES = (*range(2, 9), *CODES)


def matrix(seed: int, rows: int, columns: int) -> torch.Tensor:
    """Rows of very different sizes, of zeros and of one spike among them."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, dtype=torch.float64, generator=generator)
    weight *= 10.0 ** torch.randint(-3, 2, (rows, 1), generator=generator)
    weight[seed % rows] = 0
    weight[(seed + 1) % rows, 0] = 100
    return weight


@quick
@given(
    st.sampled_from(CHOICES),
    st.booleans(),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(0, 1000),
    st.integers(1, 9),
    st.integers(1, 40),
)
def test_training_sees_what_the_program_holds(choice, per_row, dtype, seed, rows, columns) -> None:
    """``fake(w) = sum_k scale_k[row] * W_k`` exactly, in the weight's own dtype; export does it in float64."""
    code, weight = weight_code(choice, per_row=per_row), matrix(seed, rows, columns).to(dtype)
    weight.requires_grad_()
    fake = code.fake(weight)
    terms = code.terms(weight)
    total = sum(integers * scale for integers, scale in terms)
    assert torch.equal(fake, total)
    assert all(scale.shape == (rows if per_row else 1, 1) and bool((scale > 0).all()) for _, scale in terms)
    fake.sum().backward()
    assert torch.equal(weight.grad, torch.ones_like(weight))
    planes = code.encode(weight.detach().double().numpy())
    assert all(plane.integers.dtype == np.int8 for plane in planes)
    high = 2 ** (code.bits - 1) - 1
    assert all(np.abs(plane.integers).max() <= high for plane in planes)
    if dtype == torch.float64:
        stored = sum(plane.integers * plane.scale[:, None] for plane in planes)
        assert np.array_equal(fake.detach().numpy(), stored)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_floor_holds_for_every_row(choice) -> None:
    """A row whose bias needs a coarser scale gets it, and its integers follow."""
    code, weight = weight_code(choice, per_row=True), matrix(3, 6, 20).numpy()
    floor = np.full(6, 50.0)
    (plane,) = code.encode(weight, floor)
    assert (plane.scale >= floor).all()
    error = np.abs(weight - plane.integers * plane.scale[:, None])
    raised = plane.scale > code.encode(weight)[0].scale
    assert raised.any()
    assert (error <= plane.scale[:, None] / 2)[raised].all()


def test_ternary_thresholds() -> None:
    """0.7 of the mean magnitude, 1.4 here, against the least squared error of all choices."""
    weight = torch.tensor([[4.0, -2.0, 1.5, 0.5]], dtype=torch.float64)
    (mean,) = CODES["ternary"](True).terms(weight)
    assert mean.integers.tolist() == [[1, -1, 1, 0]]
    assert mean.scale.tolist() == [[2.5]]
    (least,) = CODES["ternary_least_squares"](True).terms(torch.tensor([[4.0, -0.9, 0.9, 0.9]]))
    assert least.integers.tolist() == [[1, 0, 0, 0]]
    assert least.scale.tolist() == [[4.0]]


@pytest.mark.parametrize("seed", range(5))
def test_least_squares_is_the_least_of_all_subsets(seed: int) -> None:
    weight = torch.randn(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    (term,) = CODES["ternary_least_squares"](True).terms(weight)
    for row, found in zip(weight.numpy(), (weight - term.integers * term.scale).square().sum(1).numpy(), strict=True):
        size = np.abs(row)
        subsets = (list(s) for n in range(1, 8) for s in combinations(range(7), n))
        best = min(size @ size - size[s].sum() ** 2 / len(s) for s in subsets)
        assert found == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("choice", CODES)
@pytest.mark.parametrize("norm", [None, "mad"])
def test_networks_of_a_code_are_the_programs_integers(choice: str, norm: str | None) -> None:
    quant = irnn.QuantConfig(weight=choice, embedding=choice, logits_weight=choice)
    assert_all_equal(irnn.convert(quantized(language_model(norm=norm, layers=2), quant)))
    model = quantized_layer(irnn.QuantConfig(weight=choice), bidirectional=True, num_layers=2)
    program = irnn.convert(model)
    weights = [tensor for name, tensor in program.tensors.items() if name.endswith(".weight")]
    assert {tensor.encoding for tensor in weights} == {"ternary"}
    assert all(set(np.unique(tensor.data)) == {-1, 0, 1} for tensor in weights)
    assert_all_equal(program)


@pytest.mark.parametrize("choice", CODES)
def test_a_code_trains_in_every_stage(choice: str) -> None:
    model, quant = language_model(dropout=0.0), irnn.QuantConfig(weight=choice)
    tokens = ids(4, 20)
    for stage in qat.STAGES:
        qat.prepare(model, quant, irnn.PwlConfig(), stage)
        if stage == "pwl":
            qat.calibrate(model, [tokens])
        optimizer = torch.optim.Adam(model.train().parameters(), lr=0.003)
        losses = []
        for _ in range(15):
            loss, _ = model.loss(tokens[:, :-1], tokens[:, 1:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.05, stage
    rows = {row.name: row for row in qat.sites(model)}
    assert rows["lstm.0.w_h"].bits == 2
    assert rows["lstm.0.w_h"].scale[0] < rows["lstm.0.w_h"].scale[1]


def test_a_code_travels_with_the_weights() -> None:
    quant = irnn.QuantConfig(weight="ternary")
    model = quantized(language_model(), quant)
    fresh = language_model(seed=1)
    fresh.load_state_dict(model.state_dict())
    assert fresh.settings.quant == quant
    assert torch.equal(fresh.eval()(ids())[0], model(ids())[0])
    other = language_model(seed=1)
    for choice in (2, 8, "ternary_least_squares"):
        qat.prepare(other, replace(quant, weight=choice), irnn.PwlConfig(), "all")
        with pytest.raises(IrnnError, match=rf"trained for weight=ternary, not {choice}, as this model"):
            other.load_state_dict(model.state_dict())


@pytest.mark.parametrize("choice", ["trinary", "8"])
def test_an_unknown_code_is_refused_with_the_list(choice: str) -> None:
    with pytest.raises(IrnnError, match=rf"weight='{choice}': unknown weight code; allowed are ternary, tern"):
        irnn.QuantConfig(weight=choice)
    with pytest.raises(IrnnError, match=rf"'{choice}' is no weight code: allowed are a whole number 2 to 8"):
        weight_code(choice, per_row=True)
    with pytest.raises(IrnnError, match=r"hidden='ternary': bits of the role 'hidden' must be a whole number"):
        irnn.QuantConfig(hidden="ternary")
    with pytest.raises(IrnnError, match="tie_weights"):
        qat.prepare(language_model(), irnn.QuantConfig(embedding="ternary"), irnn.PwlConfig(), "all")


@dataclass(frozen=True)
class Halves(WeightCode):
    """Two planes: what is left of the first one is a second one."""

    @property
    def bits(self) -> int:
        return 4

    def terms(self, weight: torch.Tensor, floor: torch.Tensor | None = None) -> tuple[Term, ...]:
        code = weight_code(4, per_row=self.per_row)
        (first,) = code.terms(weight, floor)
        return first, *code.terms(weight - first.integers * first.scale, floor)


def test_a_code_of_several_planes_is_refused_by_a_product() -> None:
    model = language_model()
    model.lstm.layers[0].cells.forward_cell.w_h.code = Halves(per_row=True)
    recorder = IntegerRecorder(model)
    with pytest.raises(IrnnError, match=r"lstm.0.w_h: its weight code has 2 planes; a product takes one"):
        recorder._weight(model.lstm.layers[0].cells.forward_cell.w_h, "weight")
