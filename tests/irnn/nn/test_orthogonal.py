"""Orthogonal matrices: what makes them so, what keeps them so in training, and how far quantization takes them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import irnn
from irnn import qat
from irnn.errors import IrnnError
from irnn.nn.orthogonal import ORTHOGONAL, orthogonal_weight
from irnn.nn.orthogonal.bjorck import BjorckWeight, bjorck, spectral_norm
from irnn.nn.orthogonal.hadamard import HadamardWeight, hadamard_matrix
from irnn.nn.orthogonal.measure import orthogonality
from irnn.nn.orthogonal.optimizer import DECAY, EPSILON, RATE_SHARE, ProjectedAdam, ProjectedSGD
from irnn.nn.orthogonal.projected import ProjectedWeight, TangentWeight, rotations
from irnn.quant.codes import weight_code
from tests.irnn.nn.test_ornn import QORNN, one_hot_model

SIZE = 24


def gap(matrix: torch.Tensor) -> float:
    matrix = matrix.detach()
    return float((matrix @ matrix.T - torch.eye(len(matrix), dtype=matrix.dtype)).abs().max())


@pytest.mark.parametrize("name", ORTHOGONAL)
def test_every_matrix_starts_orthogonal_and_has_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    module = orthogonal_weight(name, SIZE)
    assert gap(module.weight) < 1e-5
    (module.weight * torch.randn(SIZE, SIZE)).sum().backward()
    (parameter,) = module.parameters()
    assert float(parameter.grad.abs().max()) > 0


def test_bjorck_finds_the_polar_factor() -> None:
    """Of a matrix of spectral norm 1 whose singular values are far from 1."""
    torch.manual_seed(0)
    module = BjorckWeight(SIZE).double()
    u, _, vh = torch.linalg.svd(torch.randn(SIZE, SIZE, dtype=torch.double))
    module.latent.data = 3 * u * torch.linspace(1, 0.1, SIZE, dtype=torch.double) @ vh
    torch.testing.assert_close(module.weight.detach(), u @ vh, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(lambda v: bjorck(v / torch.linalg.matrix_norm(v, 2), 3), module.latent)


@pytest.mark.parametrize("size", [1, 24, 128])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_spectral_norm_is_never_too_small_and_within_a_percent(size: int, scale: float) -> None:
    """Of orthogonal matrices, where all singular values count, of random ones and of those of rank 1."""
    torch.manual_seed(size)
    matrices = (torch.nn.init.orthogonal_(torch.empty(size, size)), torch.randn(size, size),
                torch.outer(torch.randn(size), torch.randn(size)))  # fmt: skip
    for matrix in matrices:
        exact = float(torch.linalg.matrix_norm(scale * matrix.double(), 2))
        found = float(spectral_norm(scale * matrix.double()))
        assert exact * (1 - 1e-12) <= found <= exact * size ** (1 / 512) * (1 + 1e-12)
        assert float(spectral_norm(scale * matrix)) == pytest.approx(found, rel=1e-5)


@pytest.mark.parametrize("cls", [ProjectedWeight, TangentWeight])
def test_a_projected_update_is_the_definition(cls: type[ProjectedWeight]) -> None:
    """By the whole matrices: polar factor, or exponential; and an update of rank 1 is taken as it is."""
    torch.manual_seed(0)
    module = cls(SIZE).double()
    w = module.weight.detach().clone()
    update = 0.3 * torch.outer(torch.randn(SIZE), torch.randn(SIZE)).double()
    module.move(update)
    if cls is ProjectedWeight:
        u, _, vh = torch.linalg.svd(w + update)
        expected = u @ vh
    else:
        skew = w.T @ update
        expected = w @ torch.linalg.matrix_exp((skew - skew.T) / 2)
    torch.testing.assert_close(module.weight.detach(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("cls", [ProjectedWeight, TangentWeight])
def test_a_thousand_updates_leave_it_orthogonal(cls: type[ProjectedWeight]) -> None:
    torch.manual_seed(0)
    module = cls(SIZE)
    for _ in range(1000):
        module.move(0.1 * torch.randn(SIZE, SIZE))
    assert gap(module.weight) < 1e-5


def test_rotations_are_blocks_of_two() -> None:
    matrix = rotations(5)
    assert gap(matrix) < 1e-6
    assert matrix[4].tolist() == [0, 0, 0, 0, 1]
    assert torch.count_nonzero(matrix) == 9


@pytest.mark.parametrize("size", [1, 2, 4, 8, 12, 20, 24, 40, 44, 64])
def test_hadamard_matrices(size: int) -> None:
    matrix = hadamard_matrix(size)
    assert torch.equal(matrix.abs(), torch.ones(size, size))
    assert torch.equal(matrix @ matrix.T, size * torch.eye(size))


@pytest.mark.parametrize("size", [1, 8, 32, 128])
def test_powers_of_two_are_sylvesters_as_hadamrnn_has_them(size: int) -> None:
    """32 and 128 are one more than primes of Paley's too."""
    signs = [[(-1) ** (row & column).bit_count() for column in range(size)] for row in range(size)]
    assert hadamard_matrix(size).tolist() == signs


@pytest.mark.parametrize(("size", "near"), [(3, "2, 4"), (10, "8, 12"), (36, "32, 40")])
def test_sizes_without_one_are_refused_with_those_beside_it(size: int, near: str) -> None:
    with pytest.raises(IrnnError, match=rf"hidden_size={size}: no Hadamard matrix .* near it are {near}"):
        hadamard_matrix(size)


def test_the_binary_code_of_a_hadamard_matrix_is_exact() -> None:
    module = HadamardWeight(12)
    (plane,) = weight_code("binary", per_row=True).encode(module.weight.detach().double().numpy())
    assert np.array_equal(np.abs(plane.integers), np.ones((12, 12)))
    np.testing.assert_allclose(plane.integers * plane.scale[:, None], module.weight.detach().numpy(), rtol=1e-7)


def test_projected_optimizers_move_the_rest_as_torch_does() -> None:
    """W by its own rule, from the gradient over its running root mean square; everything else bit for bit as Adam."""
    first, tokens = one_hot_model(orthogonal="projunn_d"), torch.randint(0, 60, (3, 9))
    second = copy.deepcopy(first)
    w = first.ornn.layers[0].cells["forward_cell"].w_h.weight
    ours = ProjectedAdam(first, lr=0.01)
    theirs = torch.optim.Adam([p for p in second.parameters() if p.requires_grad], lr=0.01)
    expected = copy.deepcopy(first.ornn.layers[0].cells["forward_cell"].w_h)
    for model, optimizer in ((first, ours), (second, theirs)):
        optimizer.zero_grad()
        model.loss(tokens[:, :-1], tokens[:, 1:])[0].backward()
        gradient = None if w.grad is None else w.grad.clone()
        torch.manual_seed(0)
        optimizer.step()
        if model is first:
            torch.manual_seed(0)
            root = (gradient.square() * (1 - DECAY)).sqrt()
            expected.move(-0.01 * RATE_SHARE * gradient / (root + EPSILON))
    torch.testing.assert_close(w, expected.weight, rtol=0, atol=1e-6)  # float32
    for (name, mine), other in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(mine, other) == ("w_h" not in name), name


@pytest.mark.parametrize("cls", [ProjectedAdam, ProjectedSGD])
def test_their_state_travels_with_checkpoints(cls: type) -> None:
    tokens = torch.randint(0, 60, (3, 9))

    def trained(stop: int | None) -> torch.Tensor:
        model = one_hot_model(orthogonal="projunn_t")
        optimizer = cls(model, lr=0.05)
        for step in range(6):
            if step == stop:
                saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
                model = one_hot_model(orthogonal="projunn_t")
                optimizer = cls(model, lr=0.05)
                model.load_state_dict(saved[0])
                optimizer.load_state_dict(saved[1])
            torch.manual_seed(step)
            optimizer.zero_grad()
            model.loss(tokens[:, :-1], tokens[:, 1:])[0].backward()
            optimizer.step()
        return model.ornn.layers[0].cells["forward_cell"].w_h.weight.detach()

    assert torch.equal(trained(None), trained(3))


def test_the_gap_is_measured_beside_its_bound() -> None:
    """More bits come nearer to orthogonal, and the grid's bound holds; a Hadamard matrix is exact in one bit."""
    spectral = []
    for bits in (3, 5, 8):
        model = one_hot_model(size=32)
        qat.prepare(model, irnn.QuantConfig(weight=f"full_range:{bits}", cell=12), irnn.PwlConfig(), "weights")
        (found,) = orthogonality(model).values()
        weight = model.ornn.layers[0].cells["forward_cell"].w_h
        q = weight.code.fake(weight.weight).detach().double()
        values = torch.linalg.svdvals(q)
        assert found["singular_values"] == [round(v, 5) for v in values.tolist()]
        assert found["spectral"] == pytest.approx(float((values.square() - 1).abs().max()))
        assert found["frobenius"] == pytest.approx(float((values.square() - 1).square().sum().sqrt()))
        assert found["spectral"] <= found["bound"]
        radius = max(abs(np.linalg.eigvals(q.numpy())))
        assert found["spectral_radius"] == pytest.approx(radius)
        assert found["latent_spectral"] < 1e-5
        spectral.append(found["spectral"])
    assert spectral[0] > 2 * spectral[1] > 4 * spectral[2]
    model = one_hot_model(size=32, orthogonal="hadamard")
    qat.prepare(model, irnn.QuantConfig(of={"*.w_h": "binary"}), irnn.PwlConfig(), "weights")
    assert orthogonality(model)["ornn.0.w_h"]["spectral"] < 1e-6
    qat.prepare(model, QORNN, irnn.PwlConfig(), "float")


def test_a_hadamard_network_is_saved_without_its_matrix() -> None:
    model, other = (one_hot_model(size=32, orthogonal="hadamard") for _ in range(2))
    saved = model.state_dict()
    assert not [name for name in saved if name.endswith("hadamard")]
    other.load_state_dict(saved)
    first, second = (m.ornn.layers[0].cells["forward_cell"].w_h.weight for m in (model, other))
    assert torch.equal(first, second)
