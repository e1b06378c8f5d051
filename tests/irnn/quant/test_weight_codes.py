"""Weight codes: one generic test for all of them, what each promises, and networks that are trained with them."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import irnn
from irnn import qat
from irnn.errors import IrnnError
from irnn.program import encodings
from irnn.quant.codes import CODES, choices, weight_code
from irnn.quant.codes.multibit import alternating, least_squares
from tests.irnn.wiring.test_converted_programs import assert_equal_to_evaluator
from tests.support.models import assert_trains_in_every_stage, ids, language_model, quantized, quantized_layer
from tests.support.strategies import quick

CHOICES = tuple(choices())
# Which stand for what is no uniform integer; one width of each code that has several.
MULTIBIT = tuple(c for c in CHOICES if c.partition(":")[0] in ("alternating", "refined", "greedy"))
NAMED = ("ternary", "ternary_least_squares", "binary", "midrise:2", "denseshift:3", "alternating:2")


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
    assert len(terms) == code.planes
    total = sum(integers * scale for integers, scale in terms)
    assert torch.equal(fake, total)
    assert all(s.shape == (rows if code.per_row else 1, 1) and bool((s > 0).all()) for _, s in terms)
    fake.sum().backward()
    assert torch.equal(weight.grad, code.gradient(weight.detach(), terms, torch.ones_like(weight)))
    planes = code.encode(weight.detach().double().numpy())
    for plane in planes:
        encoding = plane.encoding or encodings.version_1("int8", plane.bits)
        assert encodings.problem(plane.integers, plane.bits, encoding) is None
        if not plane.encoding:
            assert np.abs(plane.integers).max() <= 2 ** (plane.bits - 1) - 1
    if dtype == torch.float64:
        stored = sum(plane.integers * plane.scale[:, None] for plane in planes)
        assert np.array_equal(fake.detach().numpy(), stored)


@pytest.mark.parametrize("choice", [choice for choice in CHOICES if weight_code(choice, per_row=True).per_row])
def test_a_floor_holds_for_every_row(choice) -> None:
    """A row whose bias needs a coarser scale gets it, and its integers follow."""
    code, weight = weight_code(choice, per_row=True), matrix(3, 6, 20).numpy()
    floor = np.full(6, 50.0)
    first, *others = code.encode(weight, floor)
    assert (first.scale >= floor).all()
    left = weight.clip(-1, 1) if choice in MULTIBIT else weight
    error = np.abs(left - sum(plane.integers * plane.scale[:, None] for plane in (first, *others)))
    raised = first.scale > code.encode(weight)[0].scale
    assert raised.any()
    # A code without 0 is at worst a whole step away from it.
    steps = 1 if (first.integers != 0).all() else 0.5
    assert (error <= steps * first.scale[:, None])[raised].all()


@pytest.mark.parametrize("bits", range(2, 9))
def test_the_full_range_is_all_of_twos_complement(bits: int) -> None:
    """QORNN's grid, one alpha for the matrix: -alpha is -2**(k-1), alpha itself is clipped by one step."""
    half = 2 ** (bits - 1)
    weight = torch.linspace(-3, 3, 1001, dtype=torch.float64).reshape(7, 143)
    (plane,) = weight_code(f"full_range:{bits}", per_row=True).encode(weight.numpy())
    assert plane.scale.tolist() == [3 / half]
    assert np.unique(plane.integers).tolist() == list(range(-half, half))
    expected = np.minimum(np.floor(weight.numpy() * half / 3 + 0.5), half - 1)
    assert np.array_equal(plane.integers, expected)
    with pytest.raises(IrnnError, match="'9' is no number of bits of the weight code full_range, which has 2, 3"):
        weight_code("full_range:9", per_row=True)


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


@pytest.mark.parametrize("choice", NAMED)
@pytest.mark.parametrize("norm", [None, "mad"])
def test_networks_of_a_code_are_the_programs_integers(choice: str, norm: str | None) -> None:
    quant = irnn.QuantConfig(weight=choice, embedding=choice, logits_weight=choice)
    assert_equal_to_evaluator(irnn.convert(quantized(language_model(norm=norm, layers=2), quant)))
    model = quantized_layer(irnn.QuantConfig(weight=choice), bidirectional=True, num_layers=2)
    program = irnn.convert(model)
    weights = [tensor for name, tensor in program.tensors.items() if name.endswith(".weight")]
    code = weight_code(choice, per_row=True)
    assert {tensor.encoding for tensor in weights} == {code.encoding}
    assert len(weights) == 8 * code.planes
    assert_equal_to_evaluator(program)


@pytest.mark.parametrize("choice", NAMED)
def test_a_code_trains_in_every_stage(choice: str) -> None:
    model = language_model(dropout=0.0)
    assert_trains_in_every_stage(model, irnn.QuantConfig(weight=choice))
    rows = {row.name: row for row in qat.sites(model)}
    assert rows["lstm.0.w_h"].bits == {"binary": 1, "denseshift:3": 3}.get(choice, 2)
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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(weight="trinary"), r"weight='trinary': 'trinary' is no weight code; allowed are a whole number 2 "
         r"to 8 .*, ternary_least_squares, binary, midrise:2-4, denseshift:2-4, alternating:1-4"),
        (dict(weight=9), r"weight=9: '9' is no number of bits of the weight code uniform, which has 2, 3, 4, 5"),
        (dict(embedding="8"), r"embedding='8': '8' is no weight code"),
        (dict(weight="ternary:2"), r"weight='ternary:2': '2' is no number of bits .* ternary, which has none"),
        (dict(weight="denseshift"), r"weight='denseshift': '' is no number of bits .* has 2, 3, 4"),
        (dict(code="denseshift", weight=3), r"embedding=8 of code=denseshift: '8' is no number of bits"),
        (dict(code="ternary"), r"code='ternary': bits mean a code that has a choice of them: uniform, midrise, dense"),
        (dict(hidden="ternary"), r"hidden='ternary': bits of the role 'hidden' must be a whole number 2 to 8"),
    ],
)  # fmt: skip
def test_what_no_code_has_is_refused_with_what_there_is(settings: dict[str, object], message: str) -> None:
    with pytest.raises(IrnnError, match=message) as error:
        irnn.QuantConfig(**settings)
    assert "\n" not in str(error.value)


def test_tied_matrices_have_one_code() -> None:
    with pytest.raises(IrnnError, match="tie_weights"):
        qat.prepare(language_model(), irnn.QuantConfig(embedding="ternary"), irnn.PwlConfig(), "all")


def test_bits_mean_those_of_the_configured_code() -> None:
    """One code, however it is said: the settings that weights were trained for are the same."""
    long = irnn.QuantConfig(weight="denseshift:3", embedding="uniform:8", logits_weight=8)
    short = irnn.QuantConfig(code="denseshift", weight=3, embedding="uniform:8", logits_weight="uniform:8")
    assert [long.choice(r) for r in ("weight", "embedding", "logits_weight")] == ["denseshift:3", 8, 8]
    model = quantized(language_model(), long)
    qat.prepare(model, short, irnn.PwlConfig(), "all")
    fresh = language_model(seed=1)
    fresh.load_state_dict(model.state_dict())
    assert fresh.settings.quant == short


@pytest.mark.parametrize("seed", range(3))
def test_multibit_codes_are_ever_closer(seed: int) -> None:
    """More bits, and each way after the one before: greedy, refined, alternating."""
    weight = torch.randn(20, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) / 5

    def error(choice: str) -> torch.Tensor:
        return (weight - weight_code(choice, per_row=True).fake(weight)).square().sum(1)

    for bits in (2, 3, 4):
        assert bool((error(f"refined:{bits}") <= error(f"greedy:{bits}")).all())
        assert bool((error(f"alternating:{bits}") <= error(f"refined:{bits}") * (1 + 1e-9)).all())
        assert bool((error(f"alternating:{bits}") < error(f"alternating:{bits - 1}")).all())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_alternating_codes_are_the_nearest_of_all(count: int) -> None:
    """Each weight has the nearest of the 2**k values of its row, and the row's coefficients fit their codes best."""
    weight = torch.randn(6, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(count)) / 4
    terms = weight_code(f"alternating:{count}", per_row=True).terms(weight)
    found = sum(term.integers * term.scale for term in terms)
    for row, alphas, ours in zip(weight, torch.cat([t.scale for t in terms], 1), found, strict=True):
        values = [
            sum(s * float(a) for s, a in zip(signs, alphas, strict=True)) for signs in product((-1, 1), repeat=count)
        ]
        for w, mine in zip(row.tolist(), ours.tolist(), strict=True):
            assert abs(w - mine) == pytest.approx(min(abs(w - v) for v in values), abs=1e-12)
    greedy = weight_code(f"greedy:{count}", per_row=True).terms(weight)
    codes = [term.integers for term in greedy]
    matrix = torch.stack(codes, -1)
    best = torch.linalg.lstsq(matrix, weight[..., None]).solution[..., 0]
    solved = torch.cat(least_squares(weight, [term.scale for term in greedy], codes), 1)
    torch.testing.assert_close(solved, best, rtol=1e-9, atol=1e-12)


def test_dependent_codes_keep_their_coefficients() -> None:
    """A row of one magnitude is its first code alone: the second one is the same again."""
    row = torch.tensor([[0.5, -0.5, 0.5]], dtype=torch.float64)
    alphas, codes = alternating(row, 2)
    assert [float(a) for a in alphas] == [0.5, 0.0]
    assert torch.equal(codes[0], row * 2)


def test_latent_weights_stay_within_one() -> None:
    """What would lead further out has no gradient, what leads back has; the code is that of the clipped weight."""
    code, weight = weight_code("alternating:2", per_row=True), torch.tensor([[3.0, 3.0, 0.5, -2.0]])
    assert torch.equal(code.fake(weight), code.fake(weight.clamp(-1, 1)))
    weight.requires_grad_()
    (code.fake(weight) * torch.tensor([[-1.0, 1.0, 1.0, -1.0]])).sum().backward()
    assert weight.grad.tolist() == [[0.0, 1.0, 1.0, -1.0]]


@pytest.mark.parametrize(("bits", "error"), [(2, 0.1188), (3, 0.03744), (4, 0.01154)])
def test_midrise_is_the_best_uniform_quantizer_of_normal_weights(bits: int, error: float) -> None:
    """Mean squared errors of Max 1960, table I; all values are used, and the scale is the least-squares one."""
    weight = torch.randn(4, 20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(bits))
    (term,) = weight_code(f"midrise:{bits}", per_row=True).terms(weight)
    odd = set(range(1, 2**bits, 2))
    assert set(term.integers.unique().tolist()) == odd | {-k for k in odd}
    found = (term.integers * term.scale - weight).square().mean(1) / weight.square().mean(1)
    assert bool(((found / error - 1).abs() < 0.03).all())


@pytest.mark.parametrize(("bits", "error"), [(2, 0.1902), (3, 0.04688), (4, 0.01292)])
def test_uniform_codes_of_few_bits_have_the_scale_of_least_squares(bits: int, error: float) -> None:
    """Mean squared errors of Max 1960, table II, for 3, 7 and 15 values; one weight that is far off spoils no row."""
    weight = torch.randn(4, 20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(bits))
    weight /= weight.square().mean(1, keepdim=True).sqrt()
    weight[3, 0] = 20.0
    (term,) = weight_code(bits, per_row=True).terms(weight)
    high = 2 ** (bits - 1) - 1
    assert set(term.integers.unique().tolist()) == set(range(-high, high + 1))
    found = (term.integers * term.scale - weight).square()
    found[3, 0] = 0.0  # with it the largest weight has four times the range of the others
    assert found[:3].mean(1).tolist() == pytest.approx([error] * 3, rel=0.03)
    assert float(found[3].mean()) == pytest.approx(error, rel=0.1)


@pytest.mark.parametrize("bits", range(2, 9))
def test_what_has_a_scale_a_row(bits: int) -> None:
    """Up to 4 bits embedding and output layer have one, too."""
    config = irnn.QuantConfig(weight=bits, embedding=bits, logits_weight=bits)
    assert config.weight_code("weight").per_row
    assert config.weight_code("embedding").per_row == config.weight_code("logits_weight").per_row == (bits <= 4)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_denseshift_is_its_latents(bits: int) -> None:
    """Value and gradient are those of the paper's sign and shifts, each a tensor of its own, tied to one."""
    weight = torch.randn(4, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(bits), requires_grad=True)
    code = weight_code(f"denseshift:{bits}", per_row=True)
    (term,) = code.terms(weight)
    powers, count = term.integers.abs(), 2 ** (bits - 1) - 1
    assert set(powers.unique().tolist()) == {2.0**k for k in range(count + 1)}

    def straight(x: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return x + (value - x).detach()

    sign = straight(weight / term.scale, term.integers.sign())
    shift = torch.zeros_like(weight)
    for j in range(1, count + 1):
        # t_j, the highest threshold first: half way between 2**(n - j) and twice that.
        latent = weight.abs() / term.scale - 1.5 * 2.0 ** (count - j)
        shift = (shift + 1) * straight(latent, (latent > 0).to(latent))
    assert torch.equal(2.0 ** shift.detach(), powers)
    surrogate = term.scale * sign * torch.sqrt(shift + 1)
    direction = torch.randn(4, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    (expected,) = torch.autograd.grad((surrogate * direction).sum(), weight)
    (found,) = torch.autograd.grad((code.fake(weight) * direction).sum(), weight)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_denseshift_starts_with_the_float_weights_variance(bits: int) -> None:
    """Random shifts have many times the mean square; after the scale's fit the last rounding moves it by a tenth."""
    weight = torch.randn(30, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(bits))
    fake = weight_code(f"denseshift:{bits}", per_row=True).fake(weight)
    assert bool((fake.square().sum(1) <= 1.1 * weight.square().sum(1)).all())
    assert bool((fake != 0).all())


def test_four_bits_of_denseshift_are_a_codebook_of_sixteen() -> None:
    (plane,) = weight_code("denseshift:4", per_row=True).encode(matrix(3, 40, 300).numpy())
    assert (plane.encoding, plane.bits, str(plane.integers.dtype)) == ("codebook", 4, "int16")
    assert set(np.unique(plane.integers)) == {s * 2**k for s in (-1, 1) for k in range(8)}
    stored, codebook = encodings.encode(plane.integers, 4, "codebook")
    assert stored.shape == (40, 150)
    assert np.array_equal(encodings.decode(stored, 4, "codebook", 300, codebook), plane.integers)
