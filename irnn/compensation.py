"""Rounding whose errors are made up for: each column of a matrix is rounded in turn, the rest moves to meet its error.

A weight that is rounded alone is off by up to half a step.  What that costs where the network ends is ``e H e^T`` for a
row's error e, about (:class:`irnn.nn.error_cost.ErrorCost`); what rounding one column costs is made less by the columns
that are still free (Frantar et al. 2023, *GPTQ*, 2210.17323, after Hassibi and Stork 1993).  H tells which products
matter, and the scales follow the integers, as in Kim et al. 2025, *GuidedQuant* (2505.07004).  Nothing is trained; all
comes from the batches that calibrate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from irnn.calibration import evaluating, switched
from irnn.errors import IrnnError
from irnn.matrix_sensitivity import coded, difference, outputs, tensors
from irnn.models.base import RecurrentModel
from irnn.nn.error_cost import ErrorCost
from irnn.nn.linear import Weight
from irnn.quant.codes.base import WeightCode
from irnn.wiring.network import wiring_of

# What is added to the diagonal of H, of its mean: few vectors span fewer directions than a matrix has columns.
DAMPING = 0.01
# Of integers and scales in turn.
ROUNDS = 8
# Values of a row that are tried for one weight, at most: codes with more lose next to nothing by rounding.
MOST_VALUES = 16
# A row's weights are its code's own where the code gives them back as exactly as float32 has them.
AGREEMENT = 1e-5
# Batches whose outputs decide whether a matrix is better.
COMPARED = 3
# Of the random directions in which outputs are moved: the same batches give the same weights.
SEED = 1

Outputs = list[Tensor]  # all that leaves the network for one batch


@torch.no_grad()
def compensate(network: nn.Module, batches: Iterable[Sized]) -> None:
    """Move the weights of a network that is prepared for quantized ones to values of their codes, in place.

    batches: what :func:`irnn.qat.calibrate` takes; the network runs over them in float.  Weights of products and of
    look-ups change, an output layer's that is the embedding too for both at once; codes of more than 16 values,
    convolutions and matrices that are computed (folded norms) stay.  So does a row whose error costs no less than by
    rounding to nearest, and a matrix with which what leaves the network is no nearer to that of the float weights: by
    the divergence of the classes' distributions, of a network of one's own by the squares.  A network whose weights are
    not quantized yet, no batch, or one with NaN in it is an :class:`IrnnError`, and nothing has changed.
    """
    model: RecurrentModel = wiring_of(network)
    coded_ones = [
        modules
        for modules in tensors(model).values()
        if isinstance(modules[0].weight, nn.Parameter) and any(module.quantizing for module in modules)
    ]
    if not coded_ones:
        raise IrnnError(f"stage {model.stage!r} has no quantized weights; prepare the network for a later one first")
    given = list(batches)
    if not given:
        raise IrnnError("compensation got no batch; give at least one")
    with evaluating(model), switched(model, observing=False, quantizing=set(), exact=True):
        exact, costs = _measured(model, coded_ones, given)
        for modules, cost in zip(coded_ones, costs, strict=True):
            if all(module.code == modules[0].code for module in modules):
                _try(model, modules, cost, given[:COMPARED], exact)
    model.refresh()


def _measured(
    model: RecurrentModel, coded_ones: Sequence[Sequence[Weight]], batches: Sequence[Sized]
) -> tuple[list[Outputs], list[Tensor]]:
    """(outputs of the first batches, H of each tensor), of the float weights."""
    exact = []
    generator = torch.Generator().manual_seed(SEED)
    weights = [modules[0].weight for modules in coded_ones]
    with _error_costs(coded_ones) as costs, torch.enable_grad(), _differentiable(weights):
        for k, y in enumerate(outputs(model, batches)):
            if not all(bool(part.isfinite().all()) for part in y):
                raise IrnnError(
                    f"compensation, batch {k + 1}: what leaves the network is NaN or infinite; mend the data or the "
                    "weights before it"
                )
            moving = [part for part in y if part.requires_grad]  # what no weight reaches may leave the network as well
            directions = [model.OUTPUT_METRIC.direction(part, generator) for part in moving]
            if moving:
                torch.autograd.grad(moving, weights, directions, allow_unused=True)  # what the costs listen to
            if k < COMPARED:
                exact.append([part.detach() for part in y])
    for modules, cost in zip(coded_ones, costs, strict=True):
        if not bool(cost.total.isfinite().all()):
            raise IrnnError(f"{modules[0].where}: some gradients that reach it are NaN or infinite; mend the data")
    return exact, [cost.total for cost in costs]


@contextmanager
def _error_costs(coded_ones: Sequence[Sequence[Weight]]) -> Iterator[list[ErrorCost]]:
    """One of each tensor, which for a while is told of all products and look-ups."""
    costs = []
    for modules in coded_ones:
        costs.append(ErrorCost(modules[0].weight.shape[1]))
        for module in modules:
            module.error_cost = costs[-1]
    try:
        yield costs
    finally:
        for module in (module for modules in coded_ones for module in modules):
            module.error_cost = None


@contextmanager
def _differentiable(weights: Sequence[Tensor]) -> Iterator[None]:
    """Gradients reach them for a while, frozen or not."""
    before = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for weight, was in zip(weights, before, strict=True):
            weight.requires_grad_(was)


def _try(
    model: RecurrentModel, modules: Sequence[Weight], cost: Tensor, batches: Sequence[Sized], exact: Sequence[Outputs]
) -> None:
    """Compensate one tensor, unless what leaves the network is then further from that of the float weights."""
    weight, code = modules[0].weight, modules[0].code
    moved = compensated(weight, code, cost)
    if torch.equal(moved, weight):
        return
    given = weight.clone()
    with coded(modules, code):
        before = difference(exact, outputs(model, batches), model.OUTPUT_METRIC)
        weight.copy_(moved)
        if not difference(exact, outputs(model, batches), model.OUTPUT_METRIC) < before:
            weight.copy_(given)


def compensated(weight: Tensor, code: WeightCode, cost: Tensor) -> Tensor:
    """``weight [rows, columns]`` with the rows moved to values of their code that cost less than the nearest ones.

    cost: H ``[columns, columns]``, float64.  Integers and scales are found in turn: the scales are first those that the
    code finds for the weights as they are, then those with which the integers cost least.
    """
    given = weight.detach().to("cpu", torch.float64)
    terms = code.terms(given)
    alphabets = [integers.unique() for integers, _ in terms]
    many = math.prod(len(alphabet) for alphabet in alphabets) > MOST_VALUES
    if many or not code.per_row or not bool(cost.diagonal().sum() > 0):
        return weight
    choices = torch.cartesian_prod(*alphabets).reshape(-1, len(terms))  # what the planes of one weight may be
    scales = torch.cat([scale for _, scale in terms], 1)
    nearest, _ = code.seen(given)
    found, least = given, _costs(given - nearest, cost)
    order, factor = _ordered(cost)
    for _ in range(ROUNDS):
        planes = choices[_in_turn(given, scales @ choices.T, order, factor)]
        before, scales = scales, _scales(given, planes, cost)
        for each in (before, scales):
            values = (planes @ each[:, :, None])[:, :, 0]
            costs = _costs(given - values, cost)
            better = (costs < least) & _own(values, code)
            found, least = torch.where(better[:, None], values, found), torch.where(better, costs, least)
    return found.to(weight)


def _own(values: Tensor, code: WeightCode) -> Tensor:
    """bool ``[rows]``: where the code gives back what it is given."""
    own, _ = code.seen(values)
    return ((own - values).abs() <= AGREEMENT * values.abs().amax(1, keepdim=True)).all(1)


def _costs(error: Tensor, cost: Tensor) -> Tensor:
    """``e H e^T`` of each row."""
    return ((error @ cost) * error).sum(1)


def _scales(weight: Tensor, planes: Tensor, cost: Tensor) -> Tensor:
    """``[rows, planes]``: with which integers ``planes [rows, columns, planes]`` are off at the least cost."""
    weighed = cost @ planes
    squares, products = planes.mT @ weighed, weight[:, None] @ weighed
    return (products @ torch.linalg.pinv(squares, hermitian=True))[:, 0]


def _ordered(cost: Tensor) -> tuple[Tensor, Tensor]:
    """(the columns, the one that costs most first; the upper Cholesky factor of the inverse of H in this order)."""
    order = cost.diagonal().argsort(descending=True)
    damped = cost + DAMPING * cost.diagonal().mean() * torch.eye(len(cost), dtype=cost.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped[order][:, order]))
    return order, torch.linalg.cholesky(inverse, upper=True)


def _in_turn(weight: Tensor, values: Tensor, order: Tensor, factor: Tensor) -> Tensor:
    """Which of its row's ``values [rows, values]`` each weight becomes, the columns rounded one after the other."""
    left, found = weight[:, order].clone(), torch.empty(weight.shape, dtype=torch.long)
    for k, column in enumerate(order.tolist()):
        found[:, column] = (left[:, k, None] - values).abs().argmin(1)
        error = (left[:, k] - values.gather(1, found[:, column, None])[:, 0]) / factor[k, k]
        left[:, k:] -= error[:, None] * factor[k, k:]
    return found
