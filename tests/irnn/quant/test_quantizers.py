"""Scales, observers, fake quantization and multipliers."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from irnn.arithmetic.multipliers import choose_multiplier
from irnn.errors import IrnnError
from irnn.quant.codes import weight_code
from irnn.quant.config import ROLE_BITS, QuantConfig, integer_range
from irnn.quant.fake import FakeQuantize, grid
from irnn.quant.site import QuantSite


@given(st.floats(2.0**-32, 2.0**29, allow_subnormal=False))
def test_multiplier_is_within_half_a_unit(real):
    multiplier, shift = (int(v[0]) for v in choose_multiplier(real))
    assert 2**30 <= multiplier < 2**31
    assert 1 <= shift <= 62
    assert abs(Fraction(multiplier, 2**shift) - Fraction(real)) <= Fraction(1, 2 ** (shift + 1))


def test_multiplier_that_rounds_up_to_one_keeps_its_range():
    multiplier, shift = choose_multiplier(np.nextafter(1.0, 0))
    assert (int(multiplier[0]), int(shift[0])) == (2**30, 30)


@pytest.mark.parametrize("real", [0.0, -1.0, float("nan"), float("inf"), 2.0**-33, 2.0**31])
def test_factors_out_of_range_are_refused(real):
    with pytest.raises(IrnnError, match="cannot rescale"):
        choose_multiplier(real)


@pytest.mark.parametrize("role", ROLE_BITS)
def test_bits_out_of_a_roles_range_are_refused_by_name(role):
    low, high = ROLE_BITS[role]
    for bits in (low - 1, high + 1, 4.5, "8"):
        with pytest.raises(IrnnError, match=rf"{role}="):
            QuantConfig(**{role: bits})
    assert QuantConfig(**{role: low}).bits(role) == low


def test_unknown_roles_and_observers_are_refused():
    with pytest.raises(IrnnError, match=r"weigth.*weight"):
        QuantConfig.from_mapping({"weigth": 4})
    with pytest.raises(IrnnError, match="unknown role"):
        QuantSite("offset", 3)
    with pytest.raises(IrnnError, match="ema, percentile"):
        QuantConfig(observer="max")


def test_two_bit_weights_are_minus_one_zero_one():
    assert integer_range("weight", 2) == (-1, 1)
    weight = torch.tensor([[0.9, -1.0, 0.2], [0.0, 0.0, 0.0]])
    ((integers, scale),) = weight_code(2, per_row=True).terms(weight)
    assert integers.tolist() == [[1, -1, 0], [0, 0, 0]]
    assert scale.shape == (2, 1)
    assert float(scale[0]) == pytest.approx(0.95)  # the best scale for these, which cuts off a part of the largest
    assert float(scale[1]) == pytest.approx(2.0**-16)  # a row of zeros keeps a usable scale


@pytest.mark.parametrize("zero_point", [None, torch.tensor(0.0)])
def test_fake_quantization_rounds_half_up_and_passes_gradients_inside_the_range_only(zero_point):
    x = torch.tensor([-1.5, -0.5, 0.5, 1.5, 2.5, 300.0, -300.0], requires_grad=True)
    kept = []
    y = FakeQuantize.apply(x, *grid(torch.tensor(1.0), zero_point, -128, 127), kept)
    assert y.tolist() == [-1.0, 0.0, 1.0, 2.0, 3.0, 127.0, -128.0]
    assert torch.equal(kept[0], y)
    assert not kept[0].requires_grad
    y.sum().backward()
    assert x.grad.tolist() == [1, 1, 1, 1, 1, 0, 0]


@given(st.floats(-10, 10), st.floats(0.01, 10), st.integers(2, 8))
def test_zero_is_exact_and_the_range_is_covered(low, width, bits):
    site = QuantSite("hidden", 4)
    site.configure(QuantConfig(hidden=bits), observing=True, quantizing=True)
    site.observe(torch.linspace(low, low + width, 4)[None])
    (scale,), (zero_point,) = site.qparams()
    quant_min, quant_max = site.range()
    assert quant_min <= zero_point <= quant_max
    reach = (scale * (quant_min - zero_point - 0.51), scale * (quant_max - zero_point + 0.51))
    assert reach[0] <= min(low, 0)
    assert reach[1] >= max(low + width, 0)


def test_ema_moves_a_tenth_and_groups_are_separate():
    site = QuantSite("preactivation", 4, groups=2)
    site.observe(torch.tensor([[-1.0, 1.0, -2.0, 4.0]]))
    site.observe(torch.tensor([[-11.0, 1.0, -2.0, 14.0]]))
    assert site.observed_min.tolist() == pytest.approx([-2.0, -2.0])
    assert site.observed_max.tolist() == pytest.approx([1.0, 5.0])
    scale, zero_point = site.qparams()
    assert scale.tolist() == pytest.approx([2 / 32767, 5 / 32767])
    assert zero_point.tolist() == [0, 0]


def test_percentile_observer_ignores_outliers():
    site = QuantSite("hidden", 1000)
    site.configure(QuantConfig(observer="percentile", percentile=99.0), observing=True, quantizing=False)
    x = torch.linspace(-1, 1, 1000)
    x[500] = 1000.0
    site.observe(x[None])
    assert float(site.observed_max) < 1.0
    assert float(site.observed_min) > -1.0


def test_a_site_without_data_says_so():
    with pytest.raises(IrnnError, match="calibrate"):
        QuantSite("cell", 3).qparams()
